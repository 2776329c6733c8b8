// Decoding while another process computes without end on one of the cores. All threads should never be slower than one thread
// alone. JSON lines: by where the rival sits, ms a token with one thread and with all.
//
//   node benchmarks/dist/rival.js [--model DIR] [--threads 2] [--rounds 2] [--tokens 24]
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { LLM } from '@aphrodite/llm'
import { median, print, round } from './statistics.ts'
import { watch } from './stretches.ts'

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: fileURLToPath(new URL('../shapes/llama-3.2-1b', import.meta.url)) },
    threads: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '2' },
    tokens: { type: 'string', default: '24' },
  },
})
const all = Number(values.threads)
const open = (threads: number) =>
  LLM.create({
    model: values.model,
    loadFormat: 'dummy',
    skipTokenizerInit: true,
    dtype: 'bfloat16',
    threads,
    maxModelLen: 1024,
    maxNumSeqs: 8,
    kvCacheBytes: 128 << 20,
  })
print({ benchmark: 'rival', cpu: cpus()[0]?.model.trim(), node: process.version, threads: all })

function startRival(core: number | undefined): ChildProcess {
  const loop = ['sh', '-c', 'while :; do :; done']
  const [command, ...args] = core === undefined ? loop : ['taskset', '-c', String(core), ...loop]
  return spawn(command!, args, { stdio: 'ignore' })
}

/** What a process has used of the cores: utime and stime of /proc, in hundredths of a second. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}

/** ms a token of one sequence. */
async function decode(llm: LLM): Promise<number[]> {
  const gaps: number[] = []
  let last = 0
  const params = { temperature: 0, maxTokens: Number(values.tokens) + 4, ignoreEos: true }
  for await (const delta of llm.stream({ promptTokenIds: [1, 2, 3, 4, 5, 6, 7, 8] }, params)) {
    const now = performance.now()
    if (last > 0) gaps.push((now - last) / delta.tokenIds.length)
    last = now
  }
  return gaps.slice(3)
}

const SEATS: readonly (readonly [string, number | null | undefined])[] = [
  ['no rival', null],
  ['rival on core 0', 0],
  ['rival on core 1', 1],
  ['rival anywhere', undefined],
]
const gaps = new Map<string, number[]>()
const reads = new Map<string, number[]>()
/** Cores in use by neither us nor the rival. */
const others = new Map<string, number[]>()
const add = (to: Map<string, number[]>, key: string, xs: readonly number[]) => to.set(key, [...(to.get(key) ?? []), ...xs])
// One engine at a time, as it would be, and in turns, since the machine changes.
for (let turn = 0; turn < Number(values.rounds); turn++) {
  for (const name of ['one', 'all']) {
    const llm = await open(name === 'one' ? 1 : all)
    await decode(llm)
    for (const [seat, core] of SEATS) {
      const rival = core === null ? undefined : startRival(core)
      await new Promise((resolve) => setTimeout(resolve, 200))
      const stop = watch()
      const busy = rival ? cpuSeconds(rival.pid!) : 0
      const begun = performance.now()
      add(gaps, `${seat} ${name}`, await decode(llm))
      const rivals = rival ? (cpuSeconds(rival.pid!) - busy) / ((performance.now() - begun) / 1000) : 0
      add(others, seat, [round(Math.max(0, stop().others - rivals), 2)])
      rival?.kill('SIGKILL')
    }
    add(reads, name, [(await llm.measureLimits()).readBytesPerSecond / 1e9])
    await llm.close()
  }
}
const figures = (xs: readonly number[]) => ({
  medianMs: round(median(xs), 1),
  meanMs: round(xs.reduce((a, b) => a + b) / xs.length, 1),
  worstMs: round(Math.max(...xs), 1),
})
const alone = figures(gaps.get('no rival one')!)
for (const [seat] of SEATS) {
  const one = figures(gaps.get(`${seat} one`)!)
  const together = figures(gaps.get(`${seat} all`)!)
  print({
    seat,
    oneThread: one,
    allThreads: together,
    others: others.get(seat)!,
    allOverOneAlone: round(together.meanMs / alone.meanMs, 2),
  })
}
print({
  summary: true,
  readGBs: { oneThread: round(median(reads.get('one')!), 1), allThreads: round(median(reads.get('all')!), 1) },
})
