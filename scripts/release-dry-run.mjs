// npm run release:dry-run [-- FOLDER]: packs every package as it would be published, installs the packages into an empty project
// outside the workspace, asks the demo model something there, and serves the example of a third-party model. The project stays in FOLDER when one is given.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build, fail, packageFolders, root } from './workspace.mjs'

await build()
const { layersAlone, serveExample } = await import('./packed-example.mjs') // which imports what was built
const keep = process.argv[2]
const folder = keep ?? mkdtempSync(join(tmpdir(), 'aphrodite-release-'))
const tarballs = join(folder, 'tarballs')
mkdirSync(tarballs, { recursive: true })
// As from a user's own shell: what npm and pnpm tell their scripts (this repository's strictness, for one) stays here.
const shell = {
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm|pnpm)_/i.test(name))),
  KERNELS_CUDA_ARCHS: 'any',
}
const run = (command, args, cwd) =>
  execFileSync(command, args, {
    cwd,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...shell, PATH: `${join(root, 'node_modules/.bin')}:${process.env.PATH}` },
  })

try {
  const dependencies = {}
  for (const p of packageFolders()) {
    const manifest = JSON.parse(readFileSync(join(root, p, 'package.json'), 'utf8'))
    if (manifest.private && !p.startsWith('examples/')) continue
    // Without a CUDA compiler there are no CUDA kernels to pack; what is published has to have them (copy-release.mjs).
    if (
      manifest.name.startsWith('@aphrodite/kernels-cuda-') &&
      !existsSync(join(root, 'packages/kernels-cuda/prebuilt/kernels_cuda.node'))
    ) {
      console.log(`left out    ${manifest.name}: the CUDA kernels are not built here`)
      continue
    }
    const before = new Set(readdirSync(tarballs))
    run('pnpm', ['pack', '--pack-destination', tarballs], join(root, p))
    const tarball = readdirSync(tarballs).find((f) => !before.has(f))
    dependencies[manifest.name] = `file:./tarballs/${tarball}`
    console.log(`packed      ${manifest.name} ${manifest.version}`)
  }
  // Every tarball is a dependency and an override, so that none is looked for in a registry.
  writeFileSync(
    join(folder, 'package.json'),
    JSON.stringify(
      {
        name: 'empty',
        private: true,
        type: 'module',
        dependencies,
        overrides: Object.fromEntries(Object.keys(dependencies).map((name) => [name, `$${name}`])),
      },
      null,
      2,
    ),
  )
  run('npm', ['install', '--no-audit', '--no-fund', '--loglevel=error'], folder)
  console.log(`installed   ${Object.keys(dependencies).length} packages in ${folder}`)
  const answer = run(
    'npx',
    [
      '--no-install',
      'aphrodite',
      'generate',
      'node_modules/@aphrodite/demo-model/model',
      'What is 31 + 65?',
      '--chat',
      '--temperature',
      '0',
      '--dtype',
      'float32',
    ],
    folder,
  ).trim()
  console.log(`answered    ${answer}`)
  if (answer !== '31 + 65 = 96.') fail(`the demo model answered "${answer}" where Hugging Face answers "31 + 65 = 96."`)
  const example = join(folder, 'node_modules/lantern-model')
  run(process.execPath, ['--test', join(example, 'test/')], folder)
  console.log('tested      lantern-model, as its package does')
  for (const ranks of [1, 2]) console.log(`served      lantern-model on ${ranks}: ${await serveExample(folder, shell, ranks)}`)
  const { bytes, exports } = layersAlone(join(folder, 'layers-alone'), dependencies, run)
  console.log(`alone       @aphrodite/layers: ${(bytes / 1e6).toFixed(2)} MB, ${exports} exports, no native code`)
  if (bytes >= 2e6) fail(`@aphrodite/layers installs ${bytes} bytes; it should stay below 2 MB`)
  run('pnpm', ['exec', 'changeset', 'status'], root)
  console.log('release dry run: ok')
} catch (error) {
  console.error(error.stdout, error.stderr)
  throw error
} finally {
  if (!keep) rmSync(folder, { recursive: true, force: true })
}
