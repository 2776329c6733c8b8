import { followRank, LLM, type LLMOptions, rankFromEnvironment } from '@aphrodite/llm'

/** Thrown on a rank other than 0 once rank 0 has ended as it should: there is nothing more for the command to do. */
export class RankEnded extends Error {}

/** How long rank 0, which a signal has reached too, may take to end. */
const END_MS = 20_000

/**
 * The model of a command. Where a launcher has started this process as one of several ranks, rank 0 gets the model, and the
 * others follow it here until it ends; `--tensor-parallel-size 1` is for ranks that want a model each.
 */
export async function startModel(options: LLMOptions): Promise<LLM> {
  const rank = options.tensorParallelSize === 1 ? undefined : rankFromEnvironment(process.env)
  if (!rank) return LLM.create(options)
  const ranked = { tensorParallelSize: rank.size, ...options, rank }
  if (rank.rank === 0) return LLM.create(ranked)
  const leave = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => setTimeout(() => leave.abort(), END_MS).unref())
  await followRank(ranked, leave.signal)
  throw new RankEnded()
}
