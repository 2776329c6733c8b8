import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))

test('every package packs, installs into an empty project, and runs the demo model and the third-party example there', {
  timeout: 400_000,
}, async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ['scripts/release-dry-run.mjs'], { cwd: root, maxBuffer: 1 << 24 })
  expect(stdout).toContain('answered    31 + 65 = 96.')
  expect(stdout).toContain('tested      lantern-model')
  expect(stdout).toMatch(/served {6}lantern-model on 1: \S.{23}\nserved {6}lantern-model on 2: \S.{23}\n/)
  const [, size] = /@aphrodite\/layers: (\S+) MB, \d+ exports, no native code/.exec(stdout)!
  expect(Number(size)).toBeLessThan(2)
  expect(stdout).toMatch(/release dry run: ok\n$/)
})
