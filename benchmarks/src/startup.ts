// From nothing to the first token, with the demo model: the command line as a process, LLM.create in a fresh process, and a second
// `npm start` until it answers. Milliseconds since the process was started. JSON lines.
//
//   node benchmarks/dist/startup.js [--repeat 7] [--only cli,create,npm-start]
import { spawn } from 'node:child_process'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { modelPath } from '@aphrodite/demo-model'
import { median, print, round } from './statistics.ts'

const { values } = parseArgs({
  options: {
    repeat: { type: 'string', default: '7' },
    only: { type: 'string', default: 'cli,create,npm-start' },
    child: { type: 'boolean', default: false },
  },
})
const root = fileURLToPath(new URL('../..', import.meta.url))
const PROMPT = 'The capital of France is'

if (values.child) {
  const { LLM } = await import('@aphrodite/llm')
  const begun = performance.now()
  const llm = await LLM.create({ model: modelPath })
  const created = performance.now()
  for await (const _ of llm.stream(PROMPT, { temperature: 0, maxTokens: 1 })) break
  // performance.now() counts from the start of the process.
  print({ importedMs: begun, createMs: created - begun, firstTokenMs: performance.now() - created })
  await llm.close()
  process.exit(0)
}

/** ms until the process writes to stdout, once it has ended well; and what it wrote. */
async function firstOutput(args: readonly string[]): Promise<{ ms: number; text: string }> {
  const begun = performance.now()
  const child = spawn(process.execPath, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
  let ms = 0
  let text = ''
  let errors = ''
  child.stdout.on('data', (chunk) => {
    if (ms === 0) ms = performance.now() - begun
    text += chunk
  })
  child.stderr.on('data', (chunk) => {
    errors += chunk
  })
  const code = await new Promise((resolve) => child.on('close', resolve))
  if (code !== 0) throw new Error(`node ${args.join(' ')} ended with status ${code}: ${errors}`)
  return { ms, text }
}

/** ms from `npm start` until /health answers; undefined when it had to build first. */
async function npmStart(): Promise<number | undefined> {
  const port = 20000 + Math.floor(Math.random() * 20000)
  const begun = performance.now()
  const child = spawn('npm', ['start', '--', '--port', String(port)], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  let output = ''
  let ended = false
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += chunk
    })
  }
  const closed = new Promise<void>((resolve) => child.on('close', resolve))
  void closed.then(() => {
    ended = true
  })
  try {
    while (!ended) {
      const up = await fetch(`http://127.0.0.1:${port}/health`).then(
        (r) => r.ok,
        () => false,
      )
      if (up) return (output.match(/up to date/g) ?? []).length === 2 ? performance.now() - begun : undefined
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    throw new Error(`npm start ended: ${output}`)
  } finally {
    if (!ended) process.kill(-child.pid!, 'SIGTERM')
    await closed
  }
}

const wants = new Set(values.only.split(','))
const repeat = Number(values.repeat)
const figures = (xs: readonly number[]) => ({
  medianMs: round(median(xs), 0),
  bestMs: round(Math.min(...xs), 0),
  worstMs: round(Math.max(...xs), 0),
})
print({ benchmark: 'startup', model: 'demo', cpu: cpus()[0]?.model.trim(), node: process.version, repeat })
if (wants.has('cli')) {
  const times: number[] = []
  const args = ['packages/cli/bin/aphrodite.js', 'generate', modelPath, PROMPT, '--max-tokens', '8', '--temperature', '0']
  for (let i = 0; i < repeat; i++) times.push((await firstOutput(args)).ms)
  print({ measured: 'aphrodite generate, process to first token', ...figures(times), targetMs: 1500 })
}
if (wants.has('create')) {
  const lines: { importedMs: number; createMs: number; firstTokenMs: number }[] = []
  for (let i = 0; i < repeat; i++) lines.push(JSON.parse((await firstOutput([fileURLToPath(import.meta.url), '--child'])).text))
  const of = (key: keyof (typeof lines)[0]) => round(median(lines.map((x) => x[key])), 0)
  print({
    measured: 'LLM.create, process to first token',
    ...figures(lines.map((x) => x.importedMs + x.createMs + x.firstTokenMs)),
    importedMs: of('importedMs'),
    createMs: of('createMs'),
    firstTokenMs: of('firstTokenMs'),
    targetMs: 1500,
  })
}
if (wants.has('npm-start')) {
  const times: number[] = []
  // The first one builds what has changed.
  for (let i = 0; i < 4; i++) {
    const ms = await npmStart()
    if (ms !== undefined) times.push(ms)
  }
  if (times.length > 0) print({ measured: 'a second npm start, until /health answers', ...figures(times), targetMs: 3000 })
  else print({ measured: 'a second npm start', failed: 'every one had to build: the sources keep changing' })
}
