// The whole pass of Llama-3.2-1B's shape through the engine: attention, norms, sampling, scheduler and JavaScript included. Beside
// it what the same run measures of the machine: read bandwidth over the weights' own memory, and the peak of bf16 multiplications.
// JSON lines; the first is the configuration, the last the summary.
//
//   node benchmarks/dist/model-speed.js [--model DIR] [--dtype bfloat16] [--threads 2] [--repeat 5] [--context 8192]
//        [--only decode,crowd,prefill,context]
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { LLM } from '@aphrodite/llm'
import { median, print, round } from './statistics.ts'
import { watch } from './stretches.ts'

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: fileURLToPath(new URL('../shapes/llama-3.2-1b', import.meta.url)) },
    dtype: { type: 'string', default: 'bfloat16' },
    threads: { type: 'string', default: '2' },
    repeat: { type: 'string', default: '5' },
    only: { type: 'string', default: 'decode,crowd,prefill,context' },
    context: { type: 'string', default: '8192' },
  },
})
const context = Number(values.context)
const wants = new Set(values.only.split(','))
const SHORT = 128
const PREFILL = 512
const CROWD = 8

const llm = await LLM.create({
  model: values.model,
  loadFormat: 'dummy',
  skipTokenizerInit: true,
  dtype: values.dtype as 'bfloat16',
  threads: Number(values.threads),
  maxModelLen: context + 512,
  maxNumSeqs: 16,
  maxNumBatchedTokens: PREFILL,
  kvCacheBytes: 1 << 30,
})
const { info } = llm
print({
  benchmark: 'model-speed',
  model: info.architecture,
  parameters: info.parameters,
  dtype: info.dtype,
  device: info.device,
  cpu: cpus()[0]?.model.trim(),
  node: process.version,
  threads: info.threads,
  bytesPerStep: info.bytesPerStep,
  context,
})

let seed = 2
/** Ids that no prompt with another seed shares. */
const prompt = (length: number, of = seed++): number[] => {
  let state = of * 2654435761
  return Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state % info.vocabSize
  })
}

/** Until the first token, and between the others, in ms. */
async function answer(promptTokenIds: readonly number[], tokens: number): Promise<{ first: number; gaps: number[] }> {
  const began = performance.now()
  let last = began
  let first = 0
  const gaps: number[] = []
  for await (const delta of llm.stream({ promptTokenIds }, { temperature: 0, maxTokens: tokens, ignoreEos: true })) {
    const now = performance.now()
    if (first === 0) first = now - began
    else gaps.push(...delta.tokenIds.map(() => (now - last) / delta.tokenIds.length))
    last = now
  }
  return { first, gaps }
}

/** The machine's limits around a measurement, which change from second to second. */
async function beside<T>(f: () => Promise<T>): Promise<{ value: T; read: number; flops: number }> {
  const before = await llm.measureLimits()
  const value = await f()
  const after = await llm.measureLimits()
  const mean = (key: keyof typeof before) => (before[key] + after[key]) / 2
  return { value, read: mean('readBytesPerSecond'), flops: mean('flops') }
}

// Keys and values of every token but the short answer's, which both read.
const contextBytes = (info.ledger.groups.reduce((sum, g) => sum + g.blockBytes, 0) / 16) * (context - SHORT)
const long = prompt(context, 1)
// Computed once: the others find it in the prefix cache.
if (wants.has('context')) await answer(long, 1)
await answer(prompt(SHORT), 8)

const samples = new Map<string, number[]>()
const keep = (line: Record<string, number>): void => {
  for (const [name, value] of Object.entries(line)) samples.set(name, [...(samples.get(name) ?? []), value])
}
// The kinds take turns, so that a slow minute of the machine meets them all.
for (let r = 0; r < Number(values.repeat); r++) {
  const stop = watch()
  const line: Record<string, number> = {}
  const decode = await beside(async () => median((await answer(prompt(SHORT), 64)).gaps))
  line['readGBs'] = decode.read / 1e9
  line['peakTFLOPs'] = decode.flops / 1e12
  line['decodeMs'] = decode.value
  line['decodeOfBandwidth'] = info.bytesPerStep / (decode.value / 1000) / decode.read
  if (wants.has('crowd')) {
    const runs = await Promise.all(Array.from({ length: CROWD }, () => answer(prompt(SHORT), 48)))
    line['crowdMs'] = median(runs.flatMap((x) => x.gaps.slice(12)))
    line['crowdTimesOne'] = (CROWD * median([decode.value, median((await answer(prompt(SHORT), 32)).gaps)])) / line['crowdMs']
  }
  if (wants.has('prefill')) {
    const { value, flops } = await beside(async () => {
      const times: number[] = []
      for (let i = 0; i < 3; i++) times.push((await answer(prompt(PREFILL), 1)).first)
      return median(times)
    })
    line['prefillMs'] = value
    line['prefillOfPeak'] = (info.flopsPerToken * PREFILL) / (value / 1000) / flops
  }
  if (wants.has('context')) {
    // Long and short in turns: attention is the difference of two times that both move.
    const { value, read } = await beside(async () => {
      const pairs: [number, number][] = []
      for (let i = 0; i < 6; i++) pairs.push([median((await answer(long, 16)).gaps), median((await answer(prompt(SHORT, 1), 16)).gaps)])
      return pairs
    })
    line['contextMs'] = median(value.map(([x]) => x))
    line['attentionMs'] = median(value.map(([x, y]) => x - y))
    line['attentionOfBandwidth'] = contextBytes / (line['attentionMs'] / 1000) / read
  }
  keep(line)
  print({ run: r, ...rounded(line), others: round(stop().others, 2) })
}
const middle = Object.fromEntries([...samples].map(([name, xs]) => [name, median(xs)]))
print({
  summary: true,
  ...rounded(middle),
  decodeTokensPerSecond: round(1000 / middle['decodeMs']!, 1),
  ...(middle['crowdMs'] && { crowdTokensPerSecond: round((1000 * CROWD) / middle['crowdMs'], 1) }),
  ...(middle['prefillMs'] && { prefillTokensPerSecond: round((1000 * PREFILL) / middle['prefillMs'], 1) }),
})
await llm.close()

function rounded(line: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.entries(line).map(([k, v]) => [k, round(v, k.endsWith('Ms') ? 2 : 3)]))
}
