// The whole pass of Llama-3.2-1B's shape through the engine: attention, norms, sampling, scheduler and JavaScript included. Beside
// it what the same run measures of the machine: read bandwidth over the weights' own memory, and the peak of bf16 multiplications.
// JSON lines; the first is the configuration, the last the summary.
//
//   node benchmarks/dist/model-speed.js [--model DIR] [--dtype bfloat16] [--threads 2] [--repeat 3] [--only decode,crowd,prefill,context]
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { LLM } from '@aphrodite/llm'

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: fileURLToPath(new URL('../models/llama-3.2-1b', import.meta.url)) },
    dtype: { type: 'string', default: 'bfloat16' },
    threads: { type: 'string', default: '2' },
    repeat: { type: 'string', default: '3' },
    only: { type: 'string', default: 'decode,crowd,prefill,context' },
    context: { type: 'string', default: '8192' },
    commit: { type: 'string', default: '' },
  },
})
const print = (line: object): void => console.log(JSON.stringify(line))
const median = (xs: readonly number[]): number => xs.toSorted((a, b) => a - b)[xs.length >> 1]!
const round = (x: number, digits = 3): number => Number(x.toFixed(digits))
const repeat = Number(values.repeat)
const context = Number(values.context)
const wants = new Set(values.only.split(','))

const llm = await LLM.create({
  model: values.model,
  loadFormat: 'dummy',
  skipTokenizerInit: true,
  dtype: values.dtype as 'bfloat16',
  threads: Number(values.threads),
  maxModelLen: context + 512,
  maxNumSeqs: 16,
  maxNumBatchedTokens: 512,
  enablePrefixCaching: false,
  kvCacheBytes: 1 << 30,
})
const { info } = llm
print({
  benchmark: 'model-speed',
  commit: values.commit,
  model: info.architecture,
  parameters: info.parameters,
  dtype: info.dtype,
  device: info.device,
  cpu: cpus()[0]?.model.trim(),
  node: process.version,
  threads: info.threads,
  bytesPerStep: info.bytesPerStep,
  repeat,
})

let seed = 1
/** Ids that no other prompt shares. */
const prompt = (length: number): number[] => {
  let state = seed++ * 2654435761
  return Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state % info.vocabSize
  })
}

/** Until the first token, and between the others, in ms. */
async function answer(promptLength: number, tokens: number): Promise<{ first: number; gaps: number[] }> {
  const began = performance.now()
  let last = began
  let first = 0
  const gaps: number[] = []
  for await (const delta of llm.stream({ promptTokenIds: prompt(promptLength) }, { temperature: 0, maxTokens: tokens, ignoreEos: true })) {
    const now = performance.now()
    if (first === 0) first = now - began
    else gaps.push(...delta.tokenIds.map(() => (now - last) / delta.tokenIds.length))
    last = now
  }
  return { first, gaps }
}

await answer(128, 8)
const samples = {
  decode: [] as number[],
  crowd: [] as number[],
  prefill: [] as number[],
  context: [] as number[],
  read: [] as number[],
  flops: [] as number[],
}
// The kinds take turns, so that a slow minute of the machine meets them all.
for (let r = 0; r < repeat; r++) {
  const limits = await llm.measureLimits()
  samples.read.push(limits.readBytesPerSecond)
  samples.flops.push(limits.flops)
  if (wants.has('decode')) samples.decode.push(median((await answer(128, 64)).gaps))
  if (wants.has('crowd')) {
    const runs = await Promise.all(Array.from({ length: 8 }, () => answer(128, 48)))
    samples.crowd.push(median(runs.flatMap((x) => x.gaps.slice(12))))
  }
  if (wants.has('prefill'))
    samples.prefill.push(median([(await answer(512, 1)).first, (await answer(512, 1)).first, (await answer(512, 1)).first]))
  if (wants.has('context')) samples.context.push(median((await answer(context, 24)).gaps))
  const again = await llm.measureLimits()
  samples.read.push(again.readBytesPerSecond)
  samples.flops.push(again.flops)
  print({ run: r, ...Object.fromEntries(Object.entries(samples).map(([k, v]) => [k, round(v.at(-1) ?? 0, 2)])) })
}
const [decode, crowd, prefill, long, read, flops] = [
  samples.decode,
  samples.crowd,
  samples.prefill,
  samples.context,
  samples.read,
  samples.flops,
].map(median) as [number, number, number, number, number, number]
// Keys and values of all tokens but the 128 that the short answer had as well.
const config = { kvBytesPerToken: info.ledger.groups.reduce((sum, g) => sum + g.blockBytes, 0) / 16 }
const attentionMs = long - decode
print({
  summary: true,
  readGBs: round(read / 1e9, 1),
  peakTFLOPs: round(flops / 1e12),
  decodeMs: round(decode, 2),
  decodeTokensPerSecond: round(1000 / decode, 1),
  decodeOfBandwidth: round(info.bytesPerStep / (decode / 1000) / read),
  crowdMs: round(crowd, 2),
  crowdTokensPerSecond: round(8000 / crowd, 1),
  crowdTimesOne: round((8 * decode) / crowd, 2),
  prefillMs: round(prefill, 1),
  prefillTokensPerSecond: round(512_000 / prefill, 0),
  prefillOfPeak: round((info.flopsPerToken * 512) / (prefill / 1000) / flops),
  contextMs: round(long, 2),
  attentionOfBandwidth: round((config.kvBytesPerToken * (context - 128)) / (attentionMs / 1000) / read),
})
await llm.close()
