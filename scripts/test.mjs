// npm test [-- VITEST ARGUMENTS]: installs, builds, lints, checks the layers, runs every test.
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { build, fail, root, run } from './workspace.mjs'

await build()
const bin = (name) => join(root, 'node_modules/.bin', name)
for (const [name, command, args] of [
  ['lint', bin('biome'), ['check', '--error-on-warnings', '.']],
  ['layers', process.execPath, ['scripts/check-layers.mjs']],
  ['types', bin('tsc'), ['-b']],
]) {
  if ((await run(command, args)) !== 0) fail(`${name} failed`)
}
const report = join(root, '.aphrodite/tests.json')
mkdirSync(join(root, '.aphrodite'), { recursive: true })
rmSync(report, { force: true })
const code = await run(bin('vitest'), [
  'run',
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${report}`,
  ...process.argv.slice(2),
])
if (existsSync(report)) {
  const { numPassedTests, numFailedTests, numPendingTests, numTotalTestSuites } = JSON.parse(readFileSync(report, 'utf8'))
  console.log(`tests: ${numPassedTests} passed, ${numFailedTests} failed, ${numPendingTests} skipped, in ${numTotalTestSuites} suites`)
}
process.exit(code)
