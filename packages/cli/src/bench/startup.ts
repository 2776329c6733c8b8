import { LLM, type LLMOptions } from '@aphrodite/llm'
import { type BenchResult, configuration } from './report.ts'
import { median } from './workload.ts'

/** How long a model takes to load and to answer; the first time counted from the start of the process. */
export async function benchStartup(options: LLMOptions, repeat: number): Promise<BenchResult> {
  const loads: number[] = []
  const firsts: number[] = []
  let fromProcessStart = Number.NaN
  let config: BenchResult['configuration'] = {}
  for (let r = 0; r < repeat; r++) {
    const started = performance.now()
    const llm = await LLM.create(options)
    loads.push(performance.now() - started)
    for await (const _ of llm.stream({ promptTokenIds: [1, 2, 3] }, { temperature: 0, maxTokens: 1, ignoreEos: true }))
      firsts.push(performance.now() - started)
    if (r === 0) fromProcessStart = performance.now() // counts from there
    config = configuration(llm, { repeat })
    await llm.close()
  }
  const figures = { msToLoad: median(loads), msToFirstToken: median(firsts), msFromProcessStart: fromProcessStart }
  return { benchmark: 'startup', configuration: config, figures }
}
