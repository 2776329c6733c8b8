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
// Tests of the GPU look at its memory: where there is one, they come afterwards and alone.
const { devices } = (await import('../packages/kernels-cuda/dist/index.js')).probeCuda()
const onGpu = devices.some((d) => d.reason === undefined)
const report = join(root, '.aphrodite/tests.json')
mkdirSync(join(root, '.aphrodite'), { recursive: true })
rmSync(report, { force: true })
let code = await run(bin('vitest'), [
  'run',
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${report}`,
  ...(onGpu ? ['--exclude=**/*.gpu.test.ts'] : []),
  ...process.argv.slice(2),
])
if (existsSync(report)) {
  const { numPassedTests, numFailedTests, numPendingTests, numTotalTestSuites, testResults } = JSON.parse(readFileSync(report, 'utf8'))
  console.log(`tests: ${numPassedTests} passed, ${numFailedTests} failed, ${numPendingTests} skipped, in ${numTotalTestSuites} suites`)
  const titles = testResults.flatMap((file) => file.assertionResults.map((test) => test.ancestorTitles.join(' ')))
  const reasons = titles.flatMap((title) => title.match(/no CUDA device: .*(?=\))/) ?? [])
  if (reasons.length > 0) console.log(`tests: ${reasons.length} of the skipped ones need a GPU; ${reasons[0]}`)
}
if (onGpu && process.argv.length === 2) code = (await run(bin('vitest'), ['run', '--config', 'vitest.gpu.config.ts'])) || code
process.exit(code)
