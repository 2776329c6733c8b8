import type { EngineCore } from '../engine-core.ts'
import { engineError } from '../errors.ts'
import type { RankFrame } from './commands.ts'
import { rankFailure } from './failure.ts'
import { apply } from './leader.ts'

/**
 * Runs the engine of a rank other than 0: does what rank 0 says, and steps when rank 0 does. Resolves when rank 0 has closed its
 * engine; this one is left to the caller. Throws RANKS_DIVERGED when this rank has drawn other tokens than rank 0, RANK_FAILED when
 * a step fails, on whichever rank.
 *
 * core: a mirrored one. next: the next frame of rank 0, waited for.
 */
export async function followRank0(core: EngineCore, rank: number, next: () => Promise<RankFrame>): Promise<void> {
  let closed = false
  const intake = async (): Promise<void> => {
    const { commands, digest } = await next()
    for (const command of commands) {
      if (command.type === 'close') closed = true
      else applyLikeRank0(core, command, rank)
    }
    // Rank 0 closes when it likes; there may be a step between that and here.
    if (!closed && core.digest !== digest) {
      const why = `rank ${rank} has drawn other tokens than rank 0 by step ${core.stats().steps}`
      throw engineError('RANKS_DIVERGED', `${why}: its weights, its kernels or its model's code differ from rank 0's.`)
    }
    if (closed) throw CLOSED
  }
  try {
    for (;;) {
      if (core.hasWork) await core.step(intake)
      else await intake()
    }
  } catch (error) {
    if (error !== CLOSED) throw rankFailure(rank, error)
  }
}

const CLOSED = Symbol('rank 0 has closed its engine')

function applyLikeRank0(core: EngineCore, command: RankFrame['commands'][number], rank: number): void {
  try {
    apply(core, command)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw engineError('RANKS_DIVERGED', `rank ${rank} refuses a request that rank 0 has taken: ${reason}`, { cause })
  }
}
