import type { LLM } from '@aphrodite/llm'
import { type LatencyOptions, timeOne } from './latency.ts'
import { type BenchResult, configuration, limitFigures, prefillWork } from './report.ts'
import { generator, median, randomPrompt } from './workload.ts'

/** How long prompts take, one at a time, each in one step where it fits one. */
export async function benchPrefill(
  llm: LLM,
  { inputLen, repeat, seed }: Pick<LatencyOptions, 'inputLen' | 'repeat' | 'seed'>,
): Promise<BenchResult> {
  const random = generator(seed)
  const one = () => timeOne(llm, randomPrompt(inputLen, llm.info.vocabSize, random), 1, 0)
  await one()
  await one()
  const times: number[] = []
  for (let r = 0; r < repeat; r++) {
    const started = performance.now()
    times.push((await one())[0]! - started)
  }
  const seconds = median(times) / 1000
  const limits = await llm.measureLimits()
  const { flops } = prefillWork(llm.info, [inputLen])
  return {
    benchmark: 'prefill',
    configuration: configuration(llm, { inputLen, repeat, seed }),
    figures: {
      msToFirstToken: seconds * 1000,
      tokensPerSecond: inputLen / seconds,
      ...limitFigures(limits),
      TFLOPs: flops / seconds / 1e12,
      prefillOfPeak: flops / seconds / limits.flops,
      linearLayersOfPeak: (inputLen * llm.info.flopsPerToken) / seconds / limits.flops,
    },
  }
}
