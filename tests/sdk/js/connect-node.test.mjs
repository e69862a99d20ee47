// The services through @connectrpc/connect-node with binary messages, over HTTP/1.1 and HTTP/2, Connect and gRPC.

import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { LIMIT_MS, UNKNOWN_PID, folderFor, rejection, require } from './sdk.mjs'

const { create, createFileRegistry, fromBinary } = require('@bufbuild/protobuf')
const { FileDescriptorSetSchema } = require('@bufbuild/protobuf/wkt')
const { Code, ConnectError, createClient } = require('@connectrpc/connect')
const { createConnectTransport, createGrpcTransport, createGrpcWebTransport } = require('@connectrpc/connect-node')

const descriptors = readFileSync(new URL('../../../target/stubs/envd.binpb', import.meta.url))
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors))
const Process = registry.getService('process.Process')
const Filesystem = registry.getService('filesystem.Filesystem')

const baseUrl = 'http://127.0.0.1:49983'
const options = { headers: { Authorization: `Basic ${Buffer.from('user:').toString('base64')}` }, timeoutMs: LIMIT_MS }
const transports = {
  'Connect, HTTP/1.1': createConnectTransport({ baseUrl, httpVersion: '1.1', useBinaryFormat: true }),
  'Connect, HTTP/2': createConnectTransport({ baseUrl, httpVersion: '2', useBinaryFormat: true }),
  'Connect, HTTP/2, JSON': createConnectTransport({ baseUrl, httpVersion: '2', useBinaryFormat: false }),
  gRPC: createGrpcTransport({ baseUrl }),
  'gRPC-Web': createGrpcWebTransport({ baseUrl, httpVersion: '1.1' }),
}

const byPid = (pid) => ({ selector: { case: 'pid', value: pid } })

for (const [name, transport] of Object.entries(transports)) {
  const process = createClient(Process, transport)
  const filesystem = createClient(Filesystem, transport)

  test(`${name}: a command streams start, data and end`, async () => {
    const request = { process: { cmd: '/bin/sh', args: ['-c', "printf '\\000\\377'; echo err >&2; exit 7"] }, stdin: false }
    const events = []
    for await (const reply of process.start(request, options)) events.push(reply.event.event)
    assert.equal(events[0].case, 'start')
    const collect = (kind) =>
      Buffer.concat(
        events.filter((e) => e.case === 'data' && e.value.output.case === kind).map((e) => e.value.output.value),
      )
    assert.deepEqual([...collect('stdout')], [0, 255])
    assert.equal(collect('stderr').toString(), 'err\n')
    const { case: last, value: end } = events.at(-1)
    assert.equal(last, 'end')
    assert.deepEqual([end.exitCode, end.exited, end.status, end.error], [7, true, 'exit status 7', 'exit status 7'])
  })

  test(`${name}: input, close and list`, async () => {
    const stream = process.start({ process: { cmd: '/bin/cat' }, stdin: true, tag: name }, options)[Symbol.asyncIterator]()
    const pid = (await stream.next()).value.event.event.value.pid
    const { processes } = await process.list({}, options)
    assert.equal(processes.find((entry) => entry.pid === pid).tag, name)
    const bytes = new Uint8Array([0, 1, 254, 255])
    await process.sendInput({ process: byPid(pid), input: { input: { case: 'stdin', value: bytes } } }, options)
    const data = (await stream.next()).value.event.event
    assert.deepEqual([data.case, [...data.value.output.value]], ['data', [0, 1, 254, 255]])
    await process.closeStdin({ process: byPid(pid) }, options)
    const end = (await stream.next()).value.event.event
    assert.deepEqual([end.case, end.value.exitCode, end.value.error], ['end', 0, undefined])
    assert.equal((await stream.next()).done, true)
  })

  test(`${name}: errors carry code and message`, async () => {
    const unary = await rejection(process.sendSignal({ process: byPid(UNKNOWN_PID), signal: 9 }, options))
    assert.ok(unary instanceof ConnectError)
    assert.deepEqual([unary.code, unary.rawMessage], [Code.NotFound, `process with pid ${UNKNOWN_PID} not found`])
    const streamed = await rejection(
      (async () => {
        for await (const _ of process.start({ process: { cmd: 'true', cwd: '/nope' } }, options));
      })(),
    )
    assert.deepEqual([streamed.code, streamed.rawMessage], [Code.InvalidArgument, "cwd '/nope' does not exist"])
  })

  test(`${name}: files are made, looked up and watched`, async (t) => {
    const folder = folderFor(t)
    const { entry } = await filesystem.makeDir({ path: `${folder}/a` }, options)
    assert.deepEqual([entry.name, entry.owner, entry.permissions], ['a', 'user', 'drwxr-xr-x'])
    const again = await rejection(filesystem.makeDir({ path: `${folder}/a` }, options))
    assert.equal(again.code, Code.AlreadyExists)
    writeFileSync(`${folder}/f`, '12345')
    assert.equal((await filesystem.stat({ path: `${folder}/f` }, options)).entry.size, 5n)

    const controller = new AbortController()
    const events = filesystem.watchDir({ path: folder }, { ...options, signal: controller.signal })[Symbol.asyncIterator]()
    assert.equal((await events.next()).value.event.case, 'start')
    writeFileSync(`${folder}/new`, '')
    const event = (await events.next()).value.event
    assert.deepEqual([event.case, event.value.name, event.value.type], ['filesystem', 'new', 1])
    controller.abort()
    await rejection(events.next())
  })
}

for (const name of ['Connect, HTTP/1.1', 'Connect, HTTP/2', 'gRPC']) {
  const process = createClient(Process, transports[name])

  test(`${name}: streamed input arrives in order`, async () => {
    const stream = process.start({ process: { cmd: '/bin/cat' }, stdin: true }, options)[Symbol.asyncIterator]()
    const pid = (await stream.next()).value.event.event.value.pid
    const schema = Process.method.streamInput.input
    async function* messages() {
      yield create(schema, { event: { case: 'start', value: { process: byPid(pid) } } })
      for (let n = 0; n < 50; n++) {
        const input = { input: { case: 'stdin', value: Buffer.from(`${n}\n`) } }
        yield create(schema, { event: { case: 'data', value: { input } } })
      }
    }
    await process.streamInput(messages(), options)
    await process.closeStdin({ process: byPid(pid) }, options)
    let output = ''
    for (let next = await stream.next(); !next.done; next = await stream.next()) {
      const { case: kind, value } = next.value.event.event
      if (kind === 'data') output += Buffer.from(value.output.value).toString()
    }
    assert.equal(output, Array.from({ length: 50 }, (_, n) => `${n}\n`).join(''))
  })
}
