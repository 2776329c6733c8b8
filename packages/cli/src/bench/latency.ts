import type { LLM } from '@aphrodite/llm'
import { cliError } from '../errors.ts'
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
  const one = (length: number) => timeOne(llm, randomPrompt(inputLen, llm.info.vocabSize, random), length, temperature)
  const batch = (length = outputLen) => Promise.all(Array.from({ length: batchSize }, () => one(length)))
  // For caches and clocks, and for steps that are captured when they are met for the second time: those of prompts too.
  await batch(1)
  await batch()
  const firsts: number[] = []
  const steps: number[] = []
  for (let r = 0; r < repeat; r++) {
    const started = performance.now()
    const runs = await batch()
    // Steps of all sequences: from when the last of them has its first token until the first of them ends.
    const whole = Math.max(...runs.map((times) => times[0]!))
    const end = Math.min(...runs.map((times) => times.at(-1)!))
    firsts.push(whole - started)
    const between = runs.flatMap((times) =>
      times.flatMap((time, i) => (i > 0 && times[i - 1]! >= whole && time <= end ? [time - times[i - 1]!] : [])),
    )
    if (between.length === 0)
      throw cliError(
        'BAD_FLAG',
        `--output-len ${outputLen} is too short: some answers end before the prompts of all ${batchSize} are computed`,
      )
    // The mean, so that tokens which come in pairs, or a step that takes long, count for what they are.
    steps.push(between.reduce((sum, gap) => sum + gap, 0) / between.length)
  }
  const step = median(steps)
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

/** When each token of one answer came. Tokens that come together share the time since the last one evenly. */
export async function timeOne(llm: LLM, promptTokenIds: readonly number[], outputLen: number, temperature: number): Promise<number[]> {
  const times: number[] = []
  for await (const { tokenIds } of llm.stream({ promptTokenIds }, { temperature, maxTokens: outputLen, ignoreEos: true })) {
    const now = performance.now()
    const last = times.at(-1) ?? now
    for (let i = 1; i <= tokenIds.length; i++) times.push(last + ((now - last) * i) / tokenIds.length)
  }
  return times
}
