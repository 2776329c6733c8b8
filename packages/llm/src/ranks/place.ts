import { isIP } from 'node:net'
import { llmError } from '../errors.ts'

/** One of the processes that run a model together, and how it finds rank 0. */
export interface RankPlace {
  readonly rank: number
  readonly size: number
  /** Where rank 0 listens. */
  readonly host: string
  readonly port: number
  /** What every rank has to know. Empty: nothing; on this machine alone. */
  readonly secret: string
}

export const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))

/** Throws BAD_RANK. */
export function checkPlace(place: RankPlace): RankPlace {
  const { rank, size, host, port, secret } = place
  if (!Number.isSafeInteger(size) || size < 1 || size > 1024) throw llmError('BAD_RANK', `there are 1 to 1024 ranks, not ${size}`)
  if (!Number.isSafeInteger(rank) || rank < 0 || rank >= size)
    throw llmError('BAD_RANK', `rank ${rank} of ${size}: ranks go from 0 to ${size - 1}`)
  if (host === '') throw llmError('BAD_RANK', `rank ${rank} of ${size} does not know where rank 0 is: set MASTER_ADDR to its host`)
  if (!Number.isSafeInteger(port) || port < 0 || port > 65535) throw llmError('BAD_RANK', `the port of rank 0 is ${port}; set MASTER_PORT`)
  if (secret === '' && !isLoopback(host))
    throw llmError(
      'BAD_RANK',
      `rank 0 is at ${host}, which others can reach: set APHRODITE_SECRET to the same secret on every rank, such as the output of "openssl rand -hex 32"`,
    )
  return place
}
