import { endOfRegistering } from '@aphrodite/models'
import { llmError } from '../errors.ts'
import { findModel } from '../find-model.ts'
import { resolveOptions } from '../options.ts'
import { collectRegistrations } from '../registrations.ts'
import type { LLMOptions } from '../types.ts'
import { endProcess } from './end-process.ts'
import { follow } from './follow.ts'

/**
 * What a process does that a launcher has started as a rank other than 0: `options` are those of rank 0's `LLM.create`, with
 * `rank` of this process. Resolves when rank 0 has ended. Throws RANK_FAILED, RANK_CHANNEL and what goes wrong here. signal:
 * leave, whatever rank 0 does.
 */
export async function followRank(options: LLMOptions, signal?: AbortSignal): Promise<void> {
  await endOfRegistering()
  const { onProgress: _, rank, ...plain } = resolveOptions(options)
  if (!rank || rank.rank === 0) throw llmError('BAD_OPTION', 'followRank is for ranks other than 0: rank 0 calls LLM.create')
  const folder = await findModel(plain.model, plain)
  const registrations = collectRegistrations(plain.plugins)
  const left = new Promise<string>((resolve) => {
    signal?.addEventListener('abort', () => resolve(`rank ${rank.rank} was told to end`), { once: true })
  })
  const { error, stuck } = await follow(rank, { folder, options: plain, registrations }, plain.rankTimeout, left)
  if (stuck) endProcess(1, stuck)
  if (error) throw error
}
