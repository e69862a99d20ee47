// Files: every call of the SDK, and watching.

import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { before, test } from 'node:test'
import { createSandbox, folderFor, rejection, sdk, until } from './sdk.mjs'

let box
before(async () => {
  box = await createSandbox()
})

const BINARY = Uint8Array.from({ length: 256_000 }, (_, n) => n % 256)

test('text written is text read', async (t) => {
  const folder = folderFor(t)
  const info = await box.files.write(`${folder}/deep/hello.txt`, 'héllo\n')
  assert.deepEqual([info.name, info.path, info.type], ['hello.txt', `${folder}/deep/hello.txt`, 'file'])
  assert.equal(await box.files.read(`${folder}/deep/hello.txt`), 'héllo\n')
  assert.equal(readFileSync(`${folder}/deep/hello.txt`, 'utf8'), 'héllo\n')
  assert.deepEqual([statSync(`${folder}/deep`).uid, statSync(`${folder}/deep/hello.txt`).uid], [1000, 1000])
})

test('bytes are written and read in every format', async (t) => {
  const path = `${folderFor(t)}/data.bin`
  await box.files.write(path, BINARY.buffer)
  assert.deepEqual(await box.files.read(path, { format: 'bytes' }), BINARY)
  const blob = await box.files.read(path, { format: 'blob' })
  assert.deepEqual(new Uint8Array(await blob.arrayBuffer()), BINARY)
  const chunks = []
  for await (const chunk of await box.files.read(path, { format: 'stream' })) chunks.push(Buffer.from(chunk))
  assert.deepEqual(new Uint8Array(Buffer.concat(chunks)), BINARY)
  await box.files.write(`${path}.blob`, new Blob([BINARY]))
  assert.deepEqual(new Uint8Array(readFileSync(`${path}.blob`)), BINARY)
})

test('an empty file reads as empty', async (t) => {
  const path = `${folderFor(t)}/empty`
  await box.files.write(path, '')
  assert.equal(await box.files.read(path), '')
  assert.equal((await box.files.read(path, { format: 'bytes' })).length, 0)
})

test('several files are written in one call', async (t) => {
  const folder = folderFor(t)
  const files = [1, 2, 3].map((n) => ({ path: `${folder}/${n}.txt`, data: `file ${n}` }))
  const infos = await box.files.write(files)
  assert.deepEqual(infos.map((info) => info.path), files.map((file) => file.path))
  assert.deepEqual(files.map((file) => readFileSync(file.path, 'utf8')), files.map((file) => file.data))
})

test('a listing has depth, order and details', async (t) => {
  const folder = folderFor(t)
  mkdirSync(`${folder}/a/sub`, { recursive: true })
  writeFileSync(`${folder}/a/one.txt`, '12345', { mode: 0o640 })
  writeFileSync(`${folder}/b.txt`, '')
  symlinkSync('b.txt', `${folder}/link`)
  const paths = async (depth) => (await box.files.list(folder, { depth })).map((e) => e.path.slice(folder.length + 1))
  assert.deepEqual(await paths(1), ['a', 'b.txt', 'link'])
  assert.deepEqual(await paths(2), ['a', 'a/one.txt', 'a/sub', 'b.txt', 'link'])
  const [directory, file] = await box.files.list(folder, { depth: 2 })
  assert.deepEqual([directory.type, directory.permissions], ['dir', 'drwxr-xr-x'])
  assert.deepEqual([file.type, file.size, file.mode, file.permissions], ['file', 5, 0o640, '-rw-r-----'])
  const link = (await box.files.list(folder)).find((entry) => entry.name === 'link')
  assert.equal(link.symlinkTarget, `${folder}/b.txt`)
})

test('existence and details of one entry', async (t) => {
  const folder = folderFor(t)
  await box.files.write(`${folder}/f`, '1234567')
  assert.equal(await box.files.exists(`${folder}/f`), true)
  assert.equal(await box.files.exists(`${folder}/g`), false)
  const info = await box.files.getInfo(`${folder}/f`)
  assert.deepEqual([info.name, info.size, info.permissions, info.owner, info.group], ['f', 7, '-rw-r--r--', 'user', 'user'])
  assert.ok(Math.abs(info.modifiedTime.getTime() - statSync(`${folder}/f`).mtimeMs) < 2)
  assert.ok((await rejection(box.files.getInfo(`${folder}/g`))) instanceof sdk.NotFoundError)
})

test('directories are made once, things are renamed and removed', async (t) => {
  const folder = folderFor(t)
  assert.equal(await box.files.makeDir(`${folder}/x/y`), true)
  assert.equal(await box.files.makeDir(`${folder}/x/y`), false)
  await box.files.write(`${folder}/x/y/f`, 'kept')
  assert.equal((await box.files.rename(`${folder}/x`, `${folder}/z`)).path, `${folder}/z`)
  assert.equal(await box.files.read(`${folder}/z/y/f`), 'kept')
  await box.files.remove(`${folder}/z`)
  assert.equal(await box.files.exists(`${folder}/z`), false)
  assert.ok((await rejection(box.files.rename(`${folder}/z`, `${folder}/w`))) instanceof sdk.NotFoundError)
})

test('errors tell what is wrong', async (t) => {
  const folder = folderFor(t)
  const missing = await rejection(box.files.read(`${folder}/missing`))
  assert.ok(missing instanceof sdk.NotFoundError)
  assert.match(missing.message, /does not exist/)
  assert.ok((await rejection(box.files.read(folder))) instanceof sdk.InvalidArgumentError)
  const user = await rejection(box.files.read(`${folder}/x`, { user: 'nobody-of-that-name' }))
  assert.ok(user instanceof sdk.AuthenticationError)
})

test('a watch sees creation, writing, renaming and removal', async (t) => {
  const folder = folderFor(t)
  const events = []
  const handle = await box.files.watchDir(folder, (event) => {
    events.push(`${event.name} ${event.type}`)
  })
  await box.files.write(`${folder}/f`, 'x')
  await box.files.rename(`${folder}/f`, `${folder}/g`)
  await box.files.remove(`${folder}/g`)
  const expected = ['f create', 'f chmod', 'f write', 'f rename', 'g create', 'g remove']
  await until(() => events.length >= expected.length, () => `six events, seen ${events}`)
  assert.deepEqual(events, expected)
  await handle.stop()
})

test('a recursive watch follows a new directory', async (t) => {
  const folder = folderFor(t)
  const events = new Set()
  const onEvent = (event) => {
    events.add(`${event.name} ${event.type}`)
  }
  const handle = await box.files.watchDir(folder, onEvent, { recursive: true })
  await box.files.makeDir(`${folder}/new`)
  await until(() => events.has('new create'), () => `new create, seen ${[...events]}`)
  await box.files.write(`${folder}/new/two`, 'x')
  await until(() => events.has('new/two write'), () => `new/two write, seen ${[...events]}`)
  await handle.stop()
})

test('watching what is not there fails', async (t) => {
  const error = await rejection(box.files.watchDir(`${folderFor(t)}/missing`, () => {}))
  assert.ok(error instanceof sdk.NotFoundError)
})
