import type { Communicator } from '@aphrodite/tensor'
import { layersError } from './errors.ts'
import type { Range } from './weights.ts'

/** One rank among others. */
export type Ranks = Pick<Communicator, 'rank' | 'size'>

/** What is held of a stretch of features, as a function of the rank: layers that meet must be given the same one. `path` is for errors. */
export type Share = (path: string, ranks: Ranks) => Range

export const wholeOf = (total: number): Range => ({ start: 0, length: total })

/** `units` among the ranks, as evenly as can be: the first ones hold one more. At most as many ranks as units. */
function unitsOf(units: number, { rank, size }: Ranks): Range {
  const each = Math.floor(units / size)
  const more = units % size
  return { start: rank * each + Math.min(rank, more), length: each + (rank < more ? 1 : 0) }
}

/**
 * The stretch of `total` features that a rank holds. Equal shares where the size divides them. Elsewhere the first ranks hold a
 * unit more than the others: `unit` features that must stay together, or, left out, as many as keep the shares aligned and
 * within an eighth of each other. It depends on nothing but these numbers, so that a column-parallel layer and the
 * row-parallel one behind it agree. Throws CANNOT_SHARD where there are more ranks than units.
 */
export function shareOf(path: string, total: number, unit: number | undefined, ranks: Ranks): Range {
  const step = unit ?? (total % ranks.size === 0 ? 1 : aligned(total, ranks.size))
  const units = total / step
  if (units < ranks.size) {
    const what = step === 1 ? `${total} features` : `${total} features in units of ${step}`
    throw layersError('CANNOT_SHARD', `${path}: ${what} cannot be shared by ${ranks.size} ranks. ${atMost(units)}`)
  }
  const { start, length } = unitsOf(units, ranks)
  return { start: start * step, length: length * step }
}

/** The largest power of two, up to a cache line's 64 elements, of which every rank gets eight or more. */
function aligned(total: number, size: number): number {
  let unit = 64
  while (unit > 1 && (total % unit !== 0 || total < 8 * unit * size)) unit /= 2
  return unit
}

/** Query heads, and the key heads that equal groups of them share. */
export interface GroupedHeads {
  readonly heads: number
  readonly kvHeads: number
}

/** A rank's heads, counted in heads. */
export interface HeadShare {
  readonly heads: Range
  readonly kvHeads: Range
}

/**
 * Heads are shared in whole groups: key heads, each with its queries, the first ranks holding one more where they do not
 * divide. Of fewer key heads than ranks each is held by several, which share its queries. So a rank's queries always see
 * key heads that it holds, and all its key heads have equally many. Throws CANNOT_SHARD where there are more ranks than heads.
 */
export function headShare(path: string, { heads, kvHeads }: GroupedHeads, ranks: Ranks): HeadShare {
  const { rank, size } = ranks
  if (size > heads) throw layersError('CANNOT_SHARD', `${path}: ${heads} heads cannot be shared by ${size} ranks. ${atMost(heads)}`)
  const group = heads / kvHeads
  if (kvHeads >= size) {
    const held = unitsOf(kvHeads, ranks)
    return { kvHeads: held, heads: { start: held.start * group, length: held.length * group } }
  }
  const head = Math.floor((rank * kvHeads) / size)
  const first = Math.ceil((head * size) / kvHeads)
  const next = Math.ceil(((head + 1) * size) / kvHeads)
  const queries = unitsOf(group, { rank: rank - first, size: next - first })
  return { kvHeads: { start: head, length: 1 }, heads: { start: head * group + queries.start, length: queries.length } }
}

/** How features that layers beside each other hold are cut. */
export interface SharingOptions {
  /** Features that stay together: a head, a block of a quantised format. Default: any, in aligned stretches where they do not divide. */
  readonly unit?: number
  /**
   * The features are those of query heads (in front of, or behind an attention): they are shared as `QKVParallelLinear` and
   * `Attention` share these heads.
   */
  readonly heads?: GroupedHeads
}

/** Throws BAD_LAYER where features are not a multiple of their units or heads. */
export function sharing(total: number, { unit, heads }: SharingOptions): Share {
  if (heads) return queriesOf(total, heads)
  if (unit !== undefined && !(Number.isSafeInteger(unit) && unit > 0 && total % unit === 0))
    throw layersError('BAD_LAYER', `${total} features cannot be shared in units of ${unit}. Take a unit that divides them.`)
  return (path, ranks) => shareOf(path, total, unit, ranks)
}

export const queriesOf = (total: number, shape: GroupedHeads): Share => headsOf(total, shape, 'heads')
export const keysOf = (total: number, shape: GroupedHeads): Share => headsOf(total, shape, 'kvHeads')

function headsOf(total: number, shape: GroupedHeads, kind: keyof HeadShare): Share {
  const width = total / shape[kind]
  if (!Number.isInteger(shape.heads / shape.kvHeads))
    throw layersError('BAD_LAYER', `${shape.heads} heads cannot share ${shape.kvHeads} key heads evenly`)
  if (!Number.isInteger(width)) throw layersError('BAD_LAYER', `${total} features are not a multiple of ${shape[kind]} heads`)
  return (path, ranks) => {
    const { start, length } = headShare(path, shape, ranks)[kind]
    return { start: start * width, length: length * width }
  }
}

const atMost = (n: number): string => `Take a tensor parallel size of ${n === 1 ? '1' : `at most ${n}`}.`
