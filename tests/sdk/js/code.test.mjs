// Code cells: state, output, results, errors, variables, contexts, time limits, charts.

import assert from 'node:assert/strict'
import { statSync, writeFileSync } from 'node:fs'
import { before, test } from 'node:test'
import { createSandbox, folderFor, rejection, sdk } from './sdk.mjs'

let box
before(async () => {
  box = await createSandbox()
})

async function contextFor(t, options) {
  const context = await box.createCodeContext(options)
  t.after(() => box.removeCodeContext(context).catch(() => {}))
  return context
}

test('state is kept from cell to cell', async () => {
  await box.runCode('x = 41')
  assert.equal((await box.runCode('x + 1')).text, '42')
})

test('callbacks see what the execution returns', async (t) => {
  const context = await contextFor(t)
  const stdout = []
  const stderr = []
  const results = []
  const execution = await box.runCode("import sys\nprint('kůň')\nprint('err', file=sys.stderr)\n'value'", {
    context,
    onStdout: (message) => stdout.push(message.line),
    onStderr: (message) => stderr.push(message.line),
    onResult: (result) => results.push(result.text),
  })
  assert.deepEqual([stdout, stderr, results], [['kůň\n'], ['err\n'], ['value']])
  assert.deepEqual([execution.logs.stdout, execution.logs.stderr, execution.text], [['kůň\n'], ['err\n'], 'value'])
  assert.equal(execution.executionCount, 1)
})

test('output arrives while the cell runs', async (t) => {
  const folder = folderFor(t)
  const code = `
import os, time
print("ready", flush=True)
while not os.path.exists("${folder}/seen"):
    time.sleep(0.02)
"finished"`
  const onStdout = () => writeFileSync(`${folder}/seen`, '')
  assert.equal((await box.runCode(code, { context: await contextFor(t), onStdout })).text, 'finished')
})

test('an exception is an error', async (t) => {
  const context = await contextFor(t)
  const errors = []
  const execution = await box.runCode('1 / 0', { context, onError: (error) => errors.push(error.name) })
  assert.deepEqual([execution.error.name, execution.error.value], ['ZeroDivisionError', 'division by zero'])
  assert.match(execution.error.traceback, /1 \/ 0/)
  assert.deepEqual(errors, ['ZeroDivisionError'])
})

test('variables of a cell are seen by it alone', async (t) => {
  const context = await contextFor(t)
  const code = "import os; os.environ.get('ONLY_ONCE', 'absent') + ' ' + os.environ['ENVD_TEST_GLOBAL']"
  assert.equal((await box.runCode(code, { context, envs: { ONLY_ONCE: 'once' } })).text, 'once from the agent')
  assert.equal((await box.runCode(code, { context })).text, 'absent from the agent')
})

test('contexts are created, listed, restarted and removed', async (t) => {
  const context = await contextFor(t, { cwd: '/usr' })
  assert.deepEqual([context.language, context.cwd], ['python', '/usr'])
  assert.equal((await box.runCode('import os; y = 1; os.getcwd()', { context })).text, '/usr')
  assert.deepEqual((await box.listCodeContexts()).at(-1).id, context.id)
  await box.restartCodeContext(context)
  const { error } = await box.runCode('y', { context })
  assert.deepEqual([error.name, error.value], ['NameError', "name 'y' is not defined"])
  await box.removeCodeContext(context)
  assert.ok(!(await box.listCodeContexts()).some((other) => other.id === context.id))
  const gone = await rejection(box.runCode('1', { context }))
  assert.match(gone.message, new RegExp(`Context ${context.id} not found`))
})

test('a cell beyond its time limit is interrupted and the next one works', async (t) => {
  const context = await contextFor(t)
  await box.runCode("kept = 'still here'", { context })
  const error = await rejection(box.runCode('import time; time.sleep(300)', { context, timeoutMs: 1500 }))
  assert.ok(error instanceof sdk.TimeoutError)
  assert.equal((await box.runCode('kept', { context, timeoutMs: 60_000 })).text, 'still here')
})

test('a figure is a picture and data, with nothing extra', async (t) => {
  const code = `
import matplotlib.pyplot as plt
plt.bar(['Ada', 'Bob'], [100, 200])
plt.title('Sales')
plt.show()`
  const { results } = await box.runCode(code, { context: await contextFor(t), timeoutMs: 120_000 })
  assert.equal(results.length, 1)
  assert.ok(Buffer.from(results[0].png, 'base64').subarray(1, 4).equals(Buffer.from('PNG')))
  assert.deepEqual([results[0].chart.type, results[0].chart.title], ['bar', 'Sales'])
  assert.deepEqual(
    results[0].chart.elements.map((element) => [element.label, element.group, element.value]),
    [
      ['Ada', 'Group 0', 100],
      ['Bob', 'Group 0', 200],
    ],
  )
  assert.deepEqual(results[0].extra, {})
})

test('a cell writes files as the user', async (t) => {
  const folder = folderFor(t)
  await box.runCode(`open('${folder}/made', 'w').close()`, { context: await contextFor(t) })
  assert.equal(statSync(`${folder}/made`).uid, 1000)
})
