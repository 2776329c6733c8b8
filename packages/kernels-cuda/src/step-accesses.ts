import { type Device, type PackedWeight, PagedCache, Tensor } from '@aphrodite/tensor'
import { contiguous, isSameView, overlaps, type Region, regionOf } from './regions.ts'
import type { Call, OpName, StepOps } from './step-list.ts'

export type Operands = Readonly<Record<string, Tensor | PackedWeight | PagedCache | undefined>>

/** What an op does to its arguments, by their names. */
export interface Access {
  readonly reads?: Operands
  /** All of it gets a new value, whatever was there. */
  readonly writes?: Operands
  /** In place: every element is read by who writes it, and by nobody else. */
  readonly updates?: Operands
  /** Some of it may be written, which only the device knows. */
  readonly touches?: Operands
}

/** Every op, so that a new one cannot be forgotten. */
const ACCESSES: { readonly [K in OpName]: (args: Parameters<StepOps[K]>) => Access } = {
  linear: ([out, x, weight, bias]) => ({ writes: { out }, reads: { x, weight, bias } }),
  embedding: ([out, ids, table]) => ({ writes: { out }, reads: { ids, table } }),
  gatherRows: ([out, x, rows]) => ({ writes: { out }, reads: { x, rows } }),
  feedTokens: ([ids, lastTokens, sources]) => ({ updates: { ids }, reads: { lastTokens, sources } }),
  rmsNorm: ([out, x, weight]) => ({ writes: { out }, reads: { x, weight } }),
  addRmsNorm: ([out, residual, x, weight]) => ({ writes: { out }, updates: { residual }, reads: { x, weight } }),
  layerNorm: ([out, x, weight, bias]) => ({ writes: { out }, reads: { x, weight, bias } }),
  add: ([out, a, b]) => ({ writes: { out }, reads: { a, b } }),
  scale: ([out, x]) => ({ writes: { out }, reads: { x } }),
  softCap: ([out, x]) => ({ writes: { out }, reads: { x } }),
  activate: ([out, x]) => ({ writes: { out }, reads: { x } }),
  activateAndMul: ([out, x]) => ({ writes: { out }, reads: { x } }),
  copy: ([out, x]) => ({ writes: { out }, reads: { x } }),
  fill: ([out]) => ({ writes: { out } }),
  rotary: ([q, k, positions, cosSin, { selector }]) => ({ updates: { q, k }, reads: { positions, cosSin, selector } }),
  writeCache: ([cache, k, v, slots]) => ({ touches: { cache }, reads: { k, v, slots } }),
  pagedAttention: ([out, q, cache, batch, { alibiSlopes, sinks }]) => {
    const { queryStarts, contextLengths, pageTables } = batch
    return { writes: { out }, reads: { q, cache, queryStarts, contextLengths, pageTables, alibiSlopes, sinks } }
  },
  penalize: ([logits, penalties, history]) => ({ updates: { logits }, reads: { ...penalties, ...history } }),
  addSparse: ([logits, offsets, ids, values]) => ({ updates: { logits }, reads: { offsets, ids, values } }),
  sample: ([tokens, logits, batch]) => ({ writes: { tokens }, reads: { logits, ...batch } }),
  logProbs: ([values, ids, ranks, logits, chosen]) => ({ writes: { values, ids, ranks }, reads: { logits, chosen } }),

  fusedLinear: ([out, x, weight, { bias, norm, residual }]) => {
    const reads = { x, weight, norm: norm?.weight, bias }
    return residual ? { updates: { out }, reads } : { writes: { out }, reads }
  },
  // A row is read whole before it is written, by the same block.
  fusedNorms: ([out, residual, x, first, second]) => {
    const weights = { first: first.weight, second: second.weight }
    return isSameView(out, x)
      ? { updates: { out, residual }, reads: weights }
      : { writes: { out }, updates: { residual }, reads: { x, ...weights } }
  },
  fusedAttention: ([out, q, k, v, cache, batch, { alibiSlopes, sinks }, rotary]) => {
    const { slots, queryStarts, contextLengths, pageTables } = batch
    const { positions, cosSin, options, norms } = rotary
    const tables = { slots, queryStarts, contextLengths, pageTables, alibiSlopes, sinks }
    return {
      writes: { out },
      touches: { cache },
      reads: { q, k, v, positions, cosSin, selector: options.selector, qNorm: norms?.q, kNorm: norms?.k, ...tables },
    }
  },
  fusedRotaryWrite: ([q, k, v, cache, slots, { positions, cosSin, options, norms }]) => ({
    updates: { q },
    touches: { cache },
    reads: { k, v, slots, positions, cosSin, selector: options.selector, qNorm: norms?.q, kNorm: norms?.k },
  }),
  collective: ([{ reads, writes }]) => ({ reads: Object.fromEntries(reads.entries()), writes: Object.fromEntries(writes.entries()) }),
}

export const accessOf = (call: Call): Access => (ACCESSES[call.op] as (args: unknown) => Access)(call.args)

/** How many bytes lie behind the address of a weight or a cache. */
export type Layout = Pick<Device, 'packedBytes' | 'pageBytes'>

/** The bytes of a call. */
export interface Extents {
  /** Updated ones too. */
  readonly reads: readonly Region[]
  /** All bytes that change for certain: updated ones too. */
  readonly writes: readonly Region[]
  readonly touches: readonly Region[]
  /** Reads that are no updates. */
  readonly inputs: readonly Region[]
}

export function extentsOf(call: Call, layout: Layout): Extents {
  const { reads, writes, updates, touches } = accessOf(call)
  const regions = (operands: Operands | undefined): Region[] =>
    Object.values(operands ?? {}).flatMap((operand) => (operand ? regionOfOperand(operand, layout) : []))
  const inputs = regions(reads)
  const updated = regions(updates)
  return { inputs, reads: [...inputs, ...updated], writes: [...regions(writes), ...updated], touches: regions(touches) }
}

/** Whether a call writes, or may write, some of these bytes. */
export const changes = ({ writes, touches }: Extents, region: Region): boolean =>
  writes.some((w) => overlaps(w, region)) || touches.some((t) => overlaps(t, region))

function regionOfOperand(operand: Tensor | PackedWeight | PagedCache, layout: Layout): Region {
  if (operand instanceof Tensor) return regionOf(operand)
  if (operand instanceof PagedCache) return contiguous(operand.address, operand.pages * layout.pageBytes(operand.shape))
  return contiguous(operand.address, layout.packedBytes(operand.format, operand.outFeatures, operand.inFeatures))
}
