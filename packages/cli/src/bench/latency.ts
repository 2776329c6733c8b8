import type { LLM } from '@aphrodite/llm'
import { type BenchResult, configuration, decodeWork, limitFigures, prefillWork } from './report.ts'
import { generator, median, randomPrompt } from './workload.ts'

export interface LatencyOptions {
  readonly inputLen: number
  readonly outputLen: number
  readonly batchSize: number
  readonly repeat: number
  readonly temperature: number
  readonly seed: number
}

/** Some sequences at the same time, and how long each of their tokens takes. */
export async function benchLatency(llm: LLM, options: LatencyOptions): Promise<BenchResult> {
  const { inputLen, outputLen, batchSize, repeat, temperature } = options
  const random = generator(options.seed)
  const one = () => timeOne(llm, randomPrompt(inputLen, llm.info.vocabSize, random), outputLen, temperature)
  const batch = () => Promise.all(Array.from({ length: batchSize }, one))
  await batch() // once for caches and clocks, and for steps that are captured when they are met
  const firsts: number[] = []
  const gaps: number[] = []
  for (let r = 0; r < repeat; r++) {
    const runs = await batch()
    firsts.push(Math.max(...runs.map((x) => x.first)))
    for (const run of runs) gaps.push(...run.gaps.slice(Math.min(batchSize, run.gaps.length - 1))) // the first few fall into the others' prompts
  }
  const step = median(gaps)
  const limits = await llm.measureLimits()
  // Half of the answer is there in the middle of it.
  const decode = decodeWork(llm.info, new Array<number>(batchSize).fill(inputLen + outputLen / 2))
  const prefill = prefillWork(llm.info, new Array<number>(batchSize).fill(inputLen))
  return {
    benchmark: 'latency',
    configuration: configuration(llm, { ...options }),
    figures: {
      msPerStep: step,
      tokensPerSecond: (batchSize * 1000) / step,
      msToFirstToken: median(firsts),
      prefillTokensPerSecond: (batchSize * inputLen * 1000) / median(firsts),
      ...limitFigures(limits),
      GBPerStep: decode.bytes / 1e9,
      decodeOfBandwidth: decode.bytes / (step / 1000) / limits.readBytesPerSecond,
      prefillOfPeak: prefill.flops / (median(firsts) / 1000) / limits.flops,
    },
  }
}

/** Times of one answer: until its first token, and between the others, in ms. */
export async function timeOne(llm: LLM, promptTokenIds: readonly number[], outputLen: number, temperature: number) {
  const started = performance.now()
  let last = started
  let first = 0
  const gaps: number[] = []
  for await (const delta of llm.stream({ promptTokenIds }, { temperature, maxTokens: outputLen, ignoreEos: true })) {
    const now = performance.now()
    if (first === 0) first = now - started
    else for (const _ of delta.tokenIds) gaps.push((now - last) / delta.tokenIds.length)
    last = now
  }
  return { first, gaps }
}
