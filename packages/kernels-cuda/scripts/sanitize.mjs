// compute-sanitizer over the op table, in parts side by side: node scripts/sanitize.mjs TOOL [--parts=8] [--limit=55] [op …]
//
// TOOL: memcheck, racecheck, synccheck, initcheck. cuBLASLt is left out unless APHRODITE_CUBLAS is set: its kernels are not ours
// to check, and slow to watch. A part that takes longer than --limit seconds is ended and counts as not done.
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const [tool = 'memcheck', ...rest] = process.argv.slice(2)
const number = (name, otherwise) => Number(rest.find((arg) => arg.startsWith(`--${name}=`))?.split('=')[1] ?? otherwise)
const parts = number('parts', 8)
const limit = number('limit', 55)
const ops = rest.filter((arg) => !arg.startsWith('--'))
const table = fileURLToPath(new URL('op-table.mjs', import.meta.url))
const env = { APHRODITE_CUBLAS: '0', ...process.env }

const runPart = (part) =>
  new Promise((resolve) => {
    const args = [
      '--tool',
      tool,
      '--error-exitcode',
      '99',
      '--print-limit',
      '5',
      process.execPath,
      table,
      '--alone',
      `--part=${part}/${parts}`,
      ...ops,
    ]
    const child = spawn('compute-sanitizer', args, { env })
    let text = ''
    child.stdout.on('data', (data) => (text += data))
    child.stderr.on('data', (data) => (text += data))
    const timer = setTimeout(() => child.kill('SIGKILL'), limit * 1000)
    child.on('error', (error) => resolve({ part, code: error.message, text }))
    child.on('close', (code) => {
      clearTimeout(timer)
      resolve({ part, code, text })
    })
  })

const started = Date.now()
const results = await Promise.all(Array.from({ length: parts }, (_, i) => runPart(i + 1)))
let bad = 0
for (const { part, code, text } of results) {
  const summary = text.match(/(ERROR|RACECHECK) SUMMARY.*/)?.[0] ?? `no summary (${code})`
  const passed = text.match(/\d+ passed, \d+ failed/)?.[0] ?? 'not done'
  const clean = code === 0 && / 0 (errors|hazards)/.test(summary)
  if (!clean) bad++
  console.log(`${tool} part ${part}: ${passed}; ${summary}`)
  if (!clean)
    console.log(
      text
        .split('\n')
        .filter((line) => line.startsWith('========='))
        .slice(0, 24)
        .join('\n'),
    )
}
console.log(
  `${tool}${ops.length ? ` of ${ops.join(', ')}` : ''}: ${bad === 0 ? 'clean' : `${bad} of ${parts} parts not clean`}, ${((Date.now() - started) / 1e3).toFixed(0)} s`,
)
process.exit(bad ? 1 : 0)
