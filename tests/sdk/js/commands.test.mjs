// Commands: foreground, streaming, background, stdin, connect, list, kill, limits, environment, user.

import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { before, test } from 'node:test'
import { UNKNOWN_PID, createSandbox, folderFor, isAlive, rejection, sdk, until } from './sdk.mjs'

let box
before(async () => {
  box = await createSandbox()
})

test('output and status come back', async () => {
  const result = await box.commands.run('echo hello $((40 + 2)); echo problem >&2')
  assert.equal(result.stdout, 'hello 42\n')
  assert.equal(result.stderr, 'problem\n')
  assert.equal(result.exitCode, 0)
  assert.ok(!result.error)
})

test('a failing command rejects with its output', async () => {
  const error = await rejection(box.commands.run('echo before; echo why >&2; exit 3'))
  assert.ok(error instanceof sdk.CommandExitError)
  assert.deepEqual([error.exitCode, error.stdout, error.stderr, error.error], [3, 'before\n', 'why\n', 'exit status 3'])
})

test('output reaches the callbacks while the command runs', async (t) => {
  const folder = folderFor(t)
  const stdout = []
  const stderr = []
  const result = await box.commands.run(
    `echo ready; while [ ! -e ${folder}/seen ]; do sleep 0.02; done; echo done; echo late >&2`,
    {
      onStdout: (text) => {
        stdout.push(text)
        if (text.includes('ready')) writeFileSync(`${folder}/seen`, '')
      },
      onStderr: (text) => {
        stderr.push(text)
      },
    },
  )
  assert.equal(stdout.join(''), 'ready\ndone\n')
  assert.equal(result.stdout, 'ready\ndone\n')
  assert.equal(stderr.join(''), 'late\n')
})

test('a long output is complete', async () => {
  const result = await box.commands.run('seq 1 200000')
  assert.equal(result.stdout, Array.from({ length: 200000 }, (_, n) => `${n + 1}\n`).join(''))
})

test('variables, directory and user of a command', async () => {
  const line = 'echo $ONLY_HERE:$ENVD_TEST_GLOBAL:$PWD:$(id -un)'
  const options = { envs: { ONLY_HERE: 'a b' }, cwd: '/usr', user: 'root' }
  assert.equal((await box.commands.run(line, options)).stdout, 'a b:from the agent:/usr:root\n')
  assert.equal((await box.commands.run(line)).stdout, ':from the agent:/home/user:user\n')
})

test('a missing directory and an unknown user are refused', async () => {
  const directory = await rejection(box.commands.run('true', { cwd: '/nope' }))
  assert.ok(directory instanceof sdk.InvalidArgumentError)
  assert.match(directory.message, /cwd '\/nope' does not exist/)
  const user = await rejection(box.commands.run('true', { user: 'nobody-of-that-name' }))
  assert.ok(user instanceof sdk.AuthenticationError)
})

test('a background command is listed until it is killed', async () => {
  const handle = await box.commands.run('exec sleep 300', { background: true, envs: { MARK: '1' } })
  const entry = (await box.commands.list()).find((process) => process.pid === handle.pid)
  assert.deepEqual([entry.cmd, entry.args, entry.envs], ['/bin/bash', ['-l', '-c', 'exec sleep 300'], { MARK: '1' }])
  assert.equal(await handle.kill(), true)
  const error = await rejection(handle.wait())
  assert.deepEqual([error.exitCode, error.error], [-1, 'signal: killed'])
  assert.equal(isAlive(handle.pid), false)
  assert.equal(await box.commands.kill(handle.pid), false)
  assert.ok(!(await box.commands.list()).some((process) => process.pid === handle.pid))
})

test('stdin reaches the command and its end is an end of file', async () => {
  const handle = await box.commands.run('cat; echo over', { background: true, stdin: true })
  await box.commands.sendStdin(handle.pid, 'first\n')
  await box.commands.sendStdin(handle.pid, 'sécond\n')
  await box.commands.closeStdin(handle.pid)
  assert.equal((await handle.wait()).stdout, 'first\nsécond\nover\n')
})

test('a second client connects after the first has left', async (t) => {
  const folder = folderFor(t)
  const first = await box.commands.run(
    `touch ${folder}/up; while [ ! -e ${folder}/go ]; do sleep 0.02; done; echo after; exit 4`,
    { background: true },
  )
  await until(() => existsSync(`${folder}/up`), () => 'the command to start')
  await first.disconnect()
  assert.equal(isAlive(first.pid), true)
  const second = await box.commands.connect(first.pid)
  writeFileSync(`${folder}/go`, '')
  const error = await rejection(second.wait())
  assert.deepEqual([error.stdout, error.exitCode], ['after\n', 4])
})

test('an unknown process is not found', async () => {
  assert.equal(await box.commands.kill(UNKNOWN_PID), false)
  assert.ok((await rejection(box.commands.sendStdin(UNKNOWN_PID, 'x'))) instanceof sdk.NotFoundError)
  assert.ok((await rejection(box.commands.connect(UNKNOWN_PID))) instanceof sdk.NotFoundError)
})

test('a command beyond its time limit is ended', async (t) => {
  const folder = folderFor(t)
  const error = await rejection(box.commands.run(`echo $$ > ${folder}/pid; exec sleep 300`, { timeoutMs: 2000 }))
  assert.ok(error instanceof sdk.TimeoutError)
  const pid = Number(readFileSync(`${folder}/pid`, 'utf8'))
  await until(() => !isAlive(pid), () => `process ${pid} gone`)
})
