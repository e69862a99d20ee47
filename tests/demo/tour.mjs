// What the agent does for the published JavaScript SDK. A wrong answer ends the tour.

import { createRequire } from 'node:module'
import { resolve } from 'node:path'

const require = createRequire(resolve(process.env.ENVD_SDK_DIR, 'package.json'))
const { Sandbox } = require('@e2b/code-interpreter')

function expect(what, value, expected) {
  console.log(`    ${what}: ${JSON.stringify(value)}`)
  if (JSON.stringify(value) !== JSON.stringify(expected)) {
    console.error(`demo: ${what}: expected ${JSON.stringify(expected)}`)
    process.exit(1)
  }
}

console.log('\nThe same agent with the published JavaScript SDK')
const sandbox = await Sandbox.create({ debug: true })

console.log('\n• A command, streamed')
const lines = []
await sandbox.commands.run('echo one; sleep 0.2; echo two', { onStdout: (text) => void lines.push(text) })
expect('chunks', lines, ['one\n', 'two\n'])

console.log('\n• A file')
await sandbox.files.write('from-javascript.txt', 'hello')
expect('read back', await sandbox.files.read('from-javascript.txt'), 'hello')
await sandbox.files.remove('from-javascript.txt')

console.log('\n• Code cells in a context of their own')
const context = await sandbox.createCodeContext()
await sandbox.runCode('y = 6', { context })
expect('y * 7', (await sandbox.runCode('y * 7', { context })).text, '42')
await sandbox.removeCodeContext(context)
process.exit(0)
