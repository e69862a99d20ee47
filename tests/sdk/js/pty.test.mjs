// Terminals: create, input, resize, reconnect, kill.

import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { createSandbox, isAlive, rejection, until } from './sdk.mjs'

let box
before(async () => {
  box = await createSandbox()
})

class Screen {
  text = ''
  #decoder = new TextDecoder()
  onData = (data) => {
    this.text += this.#decoder.decode(data, { stream: true })
  }
  shows(text) {
    return until(() => this.text.includes(text), () => `${text} on the terminal, which shows ${this.text}`)
  }
}

const typeLine = (pid, line) => box.pty.sendInput(pid, new TextEncoder().encode(`${line}\n`))

test('a shell takes input and ends with its status', async () => {
  const screen = new Screen()
  const options = { cols: 80, rows: 24, onData: screen.onData, envs: { GREETING: 'hi' }, cwd: '/usr' }
  const terminal = await box.pty.create(options)
  await typeLine(terminal.pid, 'echo $GREETING-$((20 + 22))-$PWD')
  await screen.shows('hi-42-/usr')
  await typeLine(terminal.pid, 'exit 5')
  assert.equal((await rejection(terminal.wait())).exitCode, 5)
})

test('the size can be changed', async () => {
  const screen = new Screen()
  const terminal = await box.pty.create({ cols: 80, rows: 24, onData: screen.onData })
  await typeLine(terminal.pid, 'echo first:$(stty size)')
  await screen.shows('first:24 80')
  await box.pty.resize(terminal.pid, { cols: 132, rows: 50 })
  await typeLine(terminal.pid, 'echo second:$(stty size)')
  await screen.shows('second:50 132')
  await typeLine(terminal.pid, 'exit')
  assert.equal((await terminal.wait()).exitCode, 0)
})

test('a shell outlives its client and keeps its state', async () => {
  const first = new Screen()
  const terminal = await box.pty.create({ cols: 80, rows: 24, onData: first.onData })
  await typeLine(terminal.pid, 'remembered=$((6 * 7)); echo set:$remembered')
  await first.shows('set:42')
  await terminal.disconnect()
  assert.equal(isAlive(terminal.pid), true)

  const second = new Screen()
  const again = await box.pty.connect(terminal.pid, { onData: second.onData })
  await typeLine(again.pid, 'echo still:$remembered')
  await second.shows('still:42')
  await typeLine(again.pid, 'exit')
  assert.equal((await again.wait()).exitCode, 0)
})

test('killing a terminal ends it once', async () => {
  const screen = new Screen()
  const terminal = await box.pty.create({ cols: 80, rows: 24, onData: screen.onData })
  assert.equal(await box.pty.kill(terminal.pid), true)
  assert.equal((await rejection(terminal.wait())).exitCode, -1)
  assert.equal(isAlive(terminal.pid), false)
  assert.equal(await box.pty.kill(terminal.pid), false)
})
