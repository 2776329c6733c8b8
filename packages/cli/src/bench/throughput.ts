import type { LLM } from '@aphrodite/llm'
import { type BenchResult, cacheBytes, configuration, limitFigures } from './report.ts'
import { draw, generator, median, randomPrompt, type Span } from './workload.ts'

export interface ThroughputOptions {
  readonly inputLen: Span
  readonly outputLen: Span
  readonly numPrompts: number
  readonly repeat: number
  readonly temperature: number
  readonly seed: number
}

/** Many requests at once, of lengths drawn evenly: how many tokens come out of it. */
export async function benchThroughput(llm: LLM, options: ThroughputOptions): Promise<BenchResult> {
  const { inputLen, outputLen, numPrompts, repeat, temperature } = options
  const random = generator(options.seed)
  const lengths = Array.from({ length: numPrompts }, () => [draw(inputLen, random), draw(outputLen, random)] as const)
  const input = lengths.reduce((sum, [n]) => sum + n, 0)
  const output = lengths.reduce((sum, [, n]) => sum + n, 0)
  const sampling = lengths.map(([, maxTokens], i) => ({ temperature, maxTokens, ignoreEos: true, ...(temperature > 0 && { seed: i }) }))
  await llm.generate({ promptTokenIds: randomPrompt(8, llm.info.vocabSize, random) }, { temperature, maxTokens: 8, ignoreEos: true })
  const seconds: number[] = []
  let steps = 0
  for (let r = 0; r < repeat; r++) {
    const before = (await llm.stats()).steps
    const started = performance.now()
    const prompts = lengths.map(([length]) => ({ promptTokenIds: randomPrompt(length, llm.info.vocabSize, random) }))
    const answers = await llm.generate(prompts, sampling)
    seconds.push((performance.now() - started) / 1000)
    steps = (await llm.stats()).steps - before
    const made = answers.reduce((sum, a) => sum + a.outputs[0]!.tokenIds.length, 0)
    if (made !== output) throw new Error(`${made} tokens came where ${output} were asked for`)
  }
  const time = median(seconds)
  const limits = await llm.measureLimits()
  const { info } = llm
  // Each token looks at those before it, once: cache that is read by the answers' tokens, products of all of them.
  let cached = 0
  let flops = (input + output) * info.flopsPerToken
  for (const [i, o] of lengths) {
    cached += o * cacheBytes(info, i + o / 2)
    flops += (((i + o) * (i + o + 1)) / 2) * info.flopsPerTokenSeen
  }
  return {
    benchmark: 'throughput',
    configuration: configuration(llm, {
      ...options,
      inputLen: inputLen.join('-'),
      outputLen: outputLen.join('-'),
      inputTokens: input,
      outputTokens: output,
    }),
    figures: {
      seconds: time,
      requestsPerSecond: numPrompts / time,
      outputTokensPerSecond: output / time,
      totalTokensPerSecond: (input + output) / time,
      steps,
      ...limitFigures(limits),
      readOfBandwidth: (steps * info.bytesPerStep + cached) / time / limits.readBytesPerSecond,
      computedOfPeak: flops / time / limits.flops,
    },
  }
}
