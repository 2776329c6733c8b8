// What sharing a model costs: decode steps of Llama-3.2-1B's shape by one rank with all threads, and by several ranks that have as
// many together. They take turns, each alone on the machine, and each turn counts with the median of its answers. JSON lines; the
// first is the configuration, the last the summary.
//
//   node benchmarks/dist/tensor-parallel.js [--model DIR] [--dtype bfloat16] [--ranks 2] [--threads 1] [--rounds 4] [--answers 3]
//        [--tokens 32]
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { LLM } from '@aphrodite/llm'
import { median, print, round } from './statistics.ts'

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: fileURLToPath(new URL('../shapes/llama-3.2-1b', import.meta.url)) },
    dtype: { type: 'string', default: 'bfloat16' },
    ranks: { type: 'string', default: '2' },
    /** Of each rank. */
    threads: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '4' },
    answers: { type: 'string', default: '3' },
    tokens: { type: 'string', default: '32' },
  },
})
const [ranks, threads, rounds, answers, tokens] = [values.ranks, values.threads, values.rounds, values.answers, values.tokens].map(
  Number,
) as [number, number, number, number, number]
const PROMPT = 128

const open = (tensorParallelSize: number, threads: number): Promise<LLM> =>
  LLM.create({
    model: values.model,
    loadFormat: 'dummy',
    skipTokenizerInit: true,
    device: 'cpu',
    dtype: values.dtype as 'bfloat16',
    tensorParallelSize,
    threads,
    maxModelLen: 1024,
    maxNumSeqs: 8,
    kvCacheBytes: 128 << 20,
  })

/** Milliseconds a step, from the first token to the last. */
async function decode(llm: LLM): Promise<number> {
  const promptTokenIds = Array.from({ length: PROMPT }, (_, i) => 100 + i)
  let [first, last] = [0, 0]
  for await (const delta of llm.stream({ promptTokenIds }, { temperature: 0, maxTokens: tokens, ignoreEos: true })) {
    if (delta.tokenIds.length > 0) last = performance.now()
    if (first === 0) first = last
  }
  return (last - first) / (tokens - 1)
}

const times = { alone: [] as number[], shared: [] as number[] }
for (let r = 0; r < rounds; r++)
  for (const name of ['alone', 'shared'] as const) {
    const llm = await (name === 'alone' ? open(1, ranks * threads) : open(ranks, threads))
    if (r === 0 && name === 'alone') print({ benchmark: 'tensor-parallel', ...described(llm), ranks, threads, rounds, answers, tokens })
    await decode(llm)
    const each: number[] = []
    for (let i = 0; i < answers; i++) each.push(await decode(llm))
    await llm.close()
    times[name].push(median(each))
    print({ round: r, ranks: name === 'alone' ? 1 : ranks, msPerStep: each.map((ms) => round(ms)) })
  }
const [alone, shared] = [median(times.alone), median(times.shared)]
print({ msPerStepAlone: round(alone), msPerStepShared: round(shared), throughputOfAlone: round(alone / shared) })

function described({ info }: LLM): object {
  const { architecture, parameters, dtype } = info
  return { model: architecture, parameters, dtype, cpu: cpus()[0]?.model.trim(), node: process.version }
}
