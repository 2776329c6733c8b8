import { AphroditeError } from '@aphrodite/tensor'

/** What all ranks are told when something failed on one of them. What names a rank already stays as it is. */
export function rankFailure(rank: number, error: unknown): AphroditeError {
  if (error instanceof AphroditeError && (error.code === 'RANK_FAILED' || error.code === 'RANKS_DIVERGED')) return error
  const reason = error instanceof Error ? error.message : String(error)
  return new AphroditeError('RANK_FAILED', `rank ${rank} failed: ${reason}`, { cause: error })
}
