import type { Communicator } from '@aphrodite/tensor'
import { layersError } from './errors.ts'
import type { Range } from './weights.ts'

/**
 * The stretch of `total` features that a rank holds, in whole units (a head): an equal share each, or one unit each when
 * there are fewer units than ranks, so that neighbouring ranks hold the same one. `path` is for the error.
 */
export function shareOf(path: string, total: number, unit: number, { rank, size }: Pick<Communicator, 'rank' | 'size'>): Range {
  const units = total / unit
  if (units % size === 0) return { start: (rank * total) / size, length: total / size }
  if (size % units === 0) return { start: Math.floor((rank * units) / size) * unit, length: unit }
  throw layersError(
    'CANNOT_SHARD',
    `${path}: ${units} units of ${unit} features cannot be shared by ${size} ranks. Take a tensor parallel size that divides ${units}.`,
  )
}

export const wholeOf = (total: number): Range => ({ start: 0, length: total })
