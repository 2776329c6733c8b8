// Ours, llama.cpp, ours again: the same model shape in bf16, on the same machine within minutes. JSON lines: those of model-speed and
// of llama-cpp/bench.mjs, then the ratios. llama.cpp is given its best: weights in anonymous memory, threads on different cores.
//
//   node benchmarks/dist/compare-llama-cpp.js --nlc DIR [--models DIR] [--threads 2] [--repeat 3] [--wait 15]
//
// --nlc: the folder in whose node_modules node-llama-cpp is installed. --models: where make-gguf.mjs has put its files.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { median, print, round } from './statistics.ts'

const { values } = parseArgs({
  options: {
    nlc: { type: 'string' },
    models: { type: 'string' },
    threads: { type: 'string', default: '2' },
    repeat: { type: 'string', default: '3' },
    wait: { type: 'string', default: '15' },
  },
})
if (values.nlc === undefined) {
  console.error('compare-llama-cpp needs --nlc DIR, a folder with node-llama-cpp 3.22.1 in its node_modules; benchmarks/README.md says how')
  process.exit(2)
}
const TARGETS = { decode: 1.12, prefill: 2.8, crowd: 4.5 }

interface Summary {
  readonly decodeMs: number
  readonly decodeTokensPerSecond: number
  readonly decodeOfBandwidth: number
  readonly prefillTokensPerSecond: number
  readonly crowdTokensPerSecond: number
  readonly bareCrowdTokensPerSecond?: number
  readonly readGBs: number
}

/** Runs a benchmark, repeats its lines with who said them, and returns its summary. */
async function summaryOf(who: string, file: string, args: readonly string[]): Promise<Summary> {
  const path = fileURLToPath(new URL(file, import.meta.url))
  const child = spawn(process.execPath, [path, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
  let summary: Summary | undefined
  for await (const text of createInterface({ input: child.stdout })) {
    const line = JSON.parse(text)
    print({ engine: who, ...line })
    if (line.summary) summary = line
  }
  const code = await ended
  if (code !== 0 || !summary) throw new Error(`${file} ended with status ${code} and ${summary ? 'a' : 'no'} summary`)
  return summary
}

const { threads, repeat, wait } = values
const ours = () =>
  summaryOf('aphrodite', 'model-speed.js', ['--only', 'decode,crowd,prefill', '--threads', threads, '--repeat', repeat, '--context', '512'])
const theirs = (...args: string[]) =>
  summaryOf('llama.cpp', '../llama-cpp/bench.mjs', [
    ...['--place', '--types', 'BF16', '--nlc', values.nlc!, ...(values.models ? ['--models', values.models] : [])],
    ...['--threads', threads, '--wait', wait, ...args],
  ])
const before = await ours()
const peer = await theirs('--mmap', 'false', '--only', 'decode,prefill,bare', '--tokens', '48', '--repeat', repeat)
// The weights mapped, as is its default; and its own batching, which reads them once for nearly every sequence.
const mapped = await theirs('--mmap', 'auto', '--only', 'bare,eight', '--tokens', '32', '--repeat', '1')
const after = await ours()

const mine = (key: keyof Summary): number => median([before[key]!, after[key]!])
const ratio = (what: keyof typeof TARGETS, mineRate: number, peerRate: number) => ({
  ours: round(mineRate, 1),
  llamaCpp: round(peerRate, 1),
  ratio: round(mineRate / peerRate, 2),
  target: TARGETS[what],
})
print({
  summary: true,
  comparison: 'tokens per second, bf16',
  readGBs: { before: before.readGBs, llamaCpp: peer.readGBs, after: after.readGBs },
  decodeOfBandwidth: { before: before.decodeOfBandwidth, llamaCpp: peer.decodeOfBandwidth, after: after.decodeOfBandwidth },
  decode: ratio('decode', mine('decodeTokensPerSecond'), peer.decodeTokensPerSecond),
  prefill512: ratio('prefill', mine('prefillTokensPerSecond'), peer.prefillTokensPerSecond),
  eightSequences: {
    throughItsApi: ratio('crowd', mine('crowdTokensPerSecond'), mapped.crowdTokensPerSecond),
    itsKernelsMapped: ratio('crowd', mine('crowdTokensPerSecond'), mapped.bareCrowdTokensPerSecond!),
    itsKernelsAtTheirBest: ratio('crowd', mine('crowdTokensPerSecond'), peer.bareCrowdTokensPerSecond!),
  },
})
