import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))

test('docs/reference/api says what tensor, layers and models export, and no change of it is without a changeset', async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ['scripts/api-report.mjs', '--check'], { cwd: root }).catch(
    (error: { stderr?: string }) => expect.fail(error.stderr || String(error)),
  )
  expect(stdout.match(/up to date/g)).toHaveLength(3)
})
