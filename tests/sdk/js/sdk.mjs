// The published JavaScript SDK of the release under test (ENVD_SDK_DIR), in debug mode, and small tools for tests.

import { createRequire } from 'node:module'
import { chownSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { resolve } from 'node:path'

if (!process.env.ENVD_SDK_DIR) throw new Error('ENVD_SDK_DIR names the folder with node_modules')
export const require = createRequire(resolve(process.env.ENVD_SDK_DIR, 'package.json'))

export const sdk = require('@e2b/code-interpreter')
export const LIMIT_MS = 60_000
export const UNKNOWN_PID = 4_000_000

export const createSandbox = () => sdk.Sandbox.create({ debug: true })

/** A new directory in the user's home, removed after the test. The tests run on the agent's machine as root. */
export function folderFor(t) {
  const folder = mkdtempSync('/home/user/js-')
  chownSync(folder, 1000, 1000)
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Polls until the condition gives something true and returns it. */
export async function until(condition, what) {
  const deadline = Date.now() + LIMIT_MS
  for (;;) {
    const value = await condition()
    if (value) return value
    if (Date.now() > deadline) throw new Error(`not within ${LIMIT_MS} ms: ${what()}`)
    await new Promise((done) => setTimeout(done, 20))
  }
}

export const isAlive = (pid) => existsSync(`/proc/${pid}`)

/** The rejection of a promise; fails if there is none. */
export async function rejection(promise) {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new Error('expected a rejection')
}
