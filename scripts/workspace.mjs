// What start, build and test share: install and build the workspace, and know when there is nothing to do. Plain Node, no packages:
// it runs before anything is installed.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = dirname(dirname(fileURLToPath(import.meta.url)))
const stamps = join(root, '.aphrodite')
const log = join(stamps, 'build.log')
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const pnpmVersion = manifest.packageManager.match(/pnpm@([^+]+)/)[1]

export function requireTools() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major < 20 || (major === 20 && minor < 19)) fail(`Node ${process.versions.node} is too old: Aphrodite needs 20.19 or newer.`)
  for (const [tool, hint] of [
    ['cmake', 'apt-get install cmake'],
    [process.env.CXX ?? 'c++', 'apt-get install g++'],
  ]) {
    const found = tool.includes('/') ? existsSync(tool) : process.env.PATH.split(':').some((dir) => dir && existsSync(join(dir, tool)))
    if (!found) fail(`${tool} is not on the PATH: the kernels are C++ and built here. On Debian: ${hint}`)
  }
}

export function fail(message) {
  console.error(`aphrodite: ${message}`)
  process.exit(1)
}

/** Installs and builds what is not up to date; `say` gets a line when something starts, one when it is done. */
export async function build(say = console.log) {
  const installed = stampOf(
    ['package.json', 'pnpm-lock.yaml', 'pnpm-workspace.yaml', ...packageFolders().map((p) => join(p, 'package.json'))],
    true,
  )
  if (!isFresh('install', installed) || !existsSync(join(root, 'node_modules/.pnpm'))) {
    requireTools()
    await step(say, 'install', `npm packages with pnpm ${pnpmVersion}`, [
      'npx',
      '-y',
      `pnpm@${pnpmVersion}`,
      'install',
      '--frozen-lockfile',
      '--reporter=append-only',
    ])
    keep('install', installed)
  } else say('install     up to date')
  const sources = stampOf(sourceFiles(), false) + cudaSettings()
  if (!isFresh('build', sources) || !outputsExist()) {
    requireTools()
    const turbo = (task) => [join(root, 'node_modules/.bin/turbo'), 'run', task, '--output-logs=errors-only', '--no-update-notifier']
    await step(say, 'native', 'C++ and CUDA kernels (minutes the first time)', turbo('build:native'))
    await step(say, 'build', 'TypeScript', turbo('build'))
    keep('build', stampOf(sourceFiles(), false) + cudaSettings())
  } else say('build       up to date')
}

/** Runs a command with its output in .aphrodite/build.log; prints the end of it when it fails. */
async function step(say, name, what, [command, ...args]) {
  say(`${name.padEnd(12)}${what} …`)
  const started = Date.now()
  mkdirSync(stamps, { recursive: true })
  const code = await run(command, args, { capture: log })
  if (code !== 0) {
    const lines = readFileSync(log, 'utf8').trimEnd().split('\n')
    console.error(lines.slice(-60).join('\n'))
    fail(`${name} failed (exit status ${code}). The whole output is in ${log}`)
  }
  say(`${name.padEnd(12)}done in ${((Date.now() - started) / 1000).toFixed(1)} s`)
}

export function run(command, args, { capture, env } = {}) {
  // pnpm and turbo look for each other on the PATH.
  const path = `${join(root, 'node_modules/.bin')}:${process.env.PATH}`
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      env: { ...process.env, PATH: path, TURBO_TELEMETRY_DISABLED: '1', ...env },
      stdio: capture ? ['ignore', 'pipe', 'pipe'] : 'inherit',
    })
    if (capture) {
      const chunks = []
      for (const stream of [child.stdout, child.stderr]) stream.on('data', (c) => chunks.push(c))
      child.on('close', (code) => {
        writeFileSync(capture, Buffer.concat(chunks))
        resolve(code ?? 1)
      })
    } else child.on('close', (code) => resolve(code ?? 1))
    child.on('error', (e) => fail(`${command} could not be started: ${e.message}`))
  })
}

export const packageFolders = () =>
  ['packages', 'npm', 'examples']
    .flatMap((dir) => readdirSync(join(root, dir)).map((name) => `${dir}/${name}`))
    .concat('tests', 'benchmarks')
    .filter((p) => existsSync(join(root, p, 'package.json')))

function sourceFiles() {
  const files = ['tsconfig.base.json', 'turbo.json']
  for (const p of packageFolders()) {
    for (const file of ['package.json', 'tsconfig.json', 'CMakeLists.txt']) if (existsSync(join(root, p, file))) files.push(`${p}/${file}`)
    for (const dir of ['src', 'native']) {
      if (!existsSync(join(root, p, dir))) continue
      for (const entry of readdirSync(join(root, p, dir), { recursive: true, withFileTypes: true }))
        if (entry.isFile()) files.push(join(entry.parentPath ?? entry.path, entry.name).slice(root.length + 1))
    }
  }
  return files.sort()
}

const outputsExist = () =>
  packageFolders()
    .filter((p) => p.startsWith('packages/'))
    .every(
      (p) =>
        existsSync(join(root, p, 'dist/index.js')) &&
        (!existsSync(join(root, p, 'CMakeLists.txt')) || existsSync(join(root, p, 'prebuilt'))),
    )

/** What decides whether and how CUDA kernels are built: a toolkit that comes later is seen, and built with. */
function cudaSettings() {
  const { CUDACXX, CUDA_HOME, CUDA_PATH, KERNELS_CUDA, KERNELS_CUDA_ARCHS, PATH } = process.env
  const folders = [CUDA_HOME && `${CUDA_HOME}/bin`, CUDA_PATH && `${CUDA_PATH}/bin`, ...PATH.split(':'), '/usr/local/cuda/bin']
  const nvcc = CUDACXX ?? folders.map((dir) => join(dir || '.', 'nvcc')).find((path) => existsSync(path)) ?? 'none'
  return ` nvcc ${nvcc}, ${KERNELS_CUDA ?? ''} ${KERNELS_CUDA_ARCHS ?? ''}`
}

/** By content where that is cheap, else by size and time of change. */
function stampOf(files, byContent) {
  const hash = createHash('sha256').update(process.version)
  for (const file of files) {
    const path = join(root, file)
    if (!existsSync(path)) continue
    if (byContent) hash.update(`${file}\0`).update(readFileSync(path))
    else {
      const { size, mtimeMs } = statSync(path)
      hash.update(`${file}\0${size}\0${mtimeMs}\n`)
    }
  }
  return hash.digest('hex')
}

const isFresh = (name, stamp) => existsSync(join(stamps, name)) && readFileSync(join(stamps, name), 'utf8') === stamp
function keep(name, stamp) {
  mkdirSync(stamps, { recursive: true })
  writeFileSync(join(stamps, name), stamp)
}
