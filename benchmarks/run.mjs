// npm run bench [NAME [-- OPTIONS]]: lists the benchmarks, or runs one and keeps what it prints in benchmarks/results. Builds
// nothing: npm run build does.
import { execFileSync, spawn } from 'node:child_process'
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { cpus, loadavg, totalmem } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const sources = join(here, 'src')

/** What a benchmark's first comment says, if it can be run: the line with its command says so. */
function describe(file) {
  const lines = readFileSync(join(sources, file), 'utf8').split('\n')
  const comment = lines.slice(
    0,
    lines.findIndex((line) => !line.startsWith('//')),
  )
  const text = comment.map((line) => line.replace(/^\/\/ ?/, ''))
  const usage = text.find((line) => line.includes('node benchmarks/dist/'))
  if (usage === undefined) return undefined
  const [about] = text.join(' ').split(/(?<=\.) /)
  return { name: file.slice(0, -3), about, options: usage.split('.js')[1].trim() }
}

const benchmarks = readdirSync(sources)
  .filter((file) => file.endsWith('.ts'))
  .map(describe)
  .filter(Boolean)
const [name, ...args] = process.argv.slice(2).filter((arg) => arg !== '--') // npm takes it away, node does not
if (name === undefined || name === '--help') {
  for (const { name, about, options } of benchmarks) console.log(`${name}\n    ${about}\n    npm run bench ${name} -- ${options}\n`)
  process.exit(0)
}
if (!benchmarks.some((b) => b.name === name)) {
  console.error(`there is no benchmark "${name}"; there are ${benchmarks.map((b) => b.name).join(', ')}`)
  process.exit(2)
}
const program = join(here, 'dist', `${name}.js`)
if (!existsSync(program)) {
  console.error('the benchmarks are not built: npm run build')
  process.exit(2)
}

const git = (...command) => {
  try {
    return execFileSync('git', command, { cwd: here, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  } catch {
    return undefined
  }
}
const results = join(here, 'results')
mkdirSync(results, { recursive: true })
const now = new Date().toISOString()
const file = join(results, `${now.slice(0, 10)}-${name}.jsonl`)
const keep = (line) => {
  console.log(line)
  appendFileSync(file, `${line}\n`)
}
keep(
  JSON.stringify({
    run: name,
    at: now,
    arguments: args.map((a) => a.replace(/^\/.*\//, '…/')),
    commit: git('rev-parse', '--short', 'HEAD'),
    // Changed files of the packages: the commit alone does not say what ran.
    changed: git('status', '--porcelain', '--', join(here, '../packages'))?.split('\n').filter(Boolean).length,
    cpu: cpus()[0].model.trim(),
    cores: cpus().length,
    memoryGB: Math.round(totalmem() / 1e9),
    node: process.version,
    load: loadavg().map((x) => Number(x.toFixed(2))),
  }),
)
const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
let rest = ''
child.stdout.setEncoding('utf8')
child.stdout.on('data', (chunk) => {
  const lines = (rest + chunk).split('\n')
  rest = lines.pop()
  for (const line of lines) keep(line)
})
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
child.on('close', (code, signal) => {
  if (rest) keep(rest)
  if (code !== 0) keep(JSON.stringify({ failed: code ?? signal }))
  else console.error(`kept in ${file}`)
  process.exit(code ?? 1)
})
