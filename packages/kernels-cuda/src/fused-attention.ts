import { type AttentionBatch, type AttentionOptions, DTYPE_CODE, type PagedCache, type Tensor } from '@aphrodite/tensor'
import type { FusedOps, RotaryExtras } from './fused-kernels.ts'

/** What the addon exports for these ops: the context's handle, then numbers (`native/addon/attention_ops.cc`). */
export interface NativeFusedAttention {
  fusedAttention(context: number, ...numbers: number[]): void
  fusedAttentionFits(context: number, ...numbers: number[]): boolean
  fusedRotaryWrite(context: number, ...numbers: number[]): void
}

/**
 * `FusedOps.fusedAttention`. settled: no kernel of this step, since its first, has written the batch's tensors, the positions, the
 * table of angles or the selector; then a kernel reads them, and the keys and values of past tokens, while the one before it
 * still runs.
 */
export function fusedAttention(
  native: NativeFusedAttention,
  context: number,
  settled: boolean,
  ...call: Parameters<FusedOps['fusedAttention']>
): void {
  native.fusedAttention(context, ...attentionNumbers(settled, ...call))
}

/** Whether there is a kernel for these arguments. The values of `call`'s tensors are not looked at. */
export function fusedAttentionFits(
  native: NativeFusedAttention,
  context: number,
  ...call: Parameters<FusedOps['fusedAttention']>
): boolean {
  const [out, q, k, v] = call
  return [q, k].every(areHeads) && isRows(out) && isRows(v) && native.fusedAttentionFits(context, ...attentionNumbers(false, ...call))
}

/** `FusedOps.fusedRotaryWrite`. */
export function fusedRotaryWrite(
  native: NativeFusedAttention,
  context: number,
  ...[q, k, v, cache, slots, rotary]: Parameters<FusedOps['fusedRotaryWrite']>
): void {
  native.fusedRotaryWrite(
    context,
    ...cacheNumbers(cache),
    ...headNumbers(q),
    ...headNumbers(k),
    ...rotaryNumbers(rotary),
    ...rowNumbers(v),
    ...vectorNumbers(slots),
    ...normNumbers(rotary),
  )
}

/** Whether the kernel takes these arguments: heads that lie together, none larger than it can hold. */
export function fusedRotaryWriteFits(...[q, k, v, cache]: Parameters<FusedOps['fusedRotaryWrite']>): boolean {
  const { keyDim, valueDim } = cache.shape
  return areHeads(q) && areHeads(k) && isRows(v) && q.lastDim === k.lastDim && keyDim <= MOST_HEAD_DIM && valueDim <= MOST_HEAD_DIM
}

const MOST_HEAD_DIM = 1024

export function attentionNumbers(
  settled: boolean,
  out: Tensor,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  cache: PagedCache,
  batch: AttentionBatch,
  options: AttentionOptions,
  rotary: RotaryExtras,
): number[] {
  const { queryStarts, contextLengths, pageTables } = batch
  return [
    ...rowNumbers(out),
    ...headNumbers(q),
    ...cacheNumbers(cache),
    ...vectorNumbers(queryStarts),
    ...vectorNumbers(contextLengths),
    pageTables.address,
    DTYPE_CODE[pageTables.dtype],
    pageTables.dim(0),
    pageTables.lastDim,
    pageTables.stride(0),
    options.scale,
    options.window ?? 0,
    options.softCap ?? 0,
    ...vectorNumbers(options.alibiSlopes),
    ...vectorNumbers(options.sinks),
    batch.maxQueryLength,
    batch.maxContextLength,
    ...headNumbers(k),
    ...rotaryNumbers(rotary),
    ...rowNumbers(v),
    ...vectorNumbers(batch.slots),
    ...normNumbers(rotary),
    settled ? 1 : 0,
  ]
}

const cacheNumbers = ({ address, pages, shape }: PagedCache): number[] => [
  address,
  DTYPE_CODE[shape.dtype],
  pages,
  shape.kvHeads,
  shape.keyDim,
  shape.valueDim,
]
/** Heads of a token lie together, so they are one row. */
const rowNumbers = (t: Tensor): number[] => [t.address, DTYPE_CODE[t.dtype], t.dim(0), t.size / Math.max(t.dim(0), 1), t.stride(0)]
const headNumbers = (t: Tensor): number[] => [...rowNumbers(t), t.dim(1)]
const vectorNumbers = (t: Tensor | undefined): number[] => (t ? [t.address, DTYPE_CODE[t.dtype], t.size] : [0, 0, 0])

function rotaryNumbers({ positions, cosSin, options }: RotaryExtras): number[] {
  const { interleaved = false, selector, bound = 0 } = options
  return [...vectorNumbers(positions), ...rowNumbers(cosSin), interleaved ? 1 : 0, ...vectorNumbers(selector), bound]
}
const normNumbers = ({ norms }: RotaryExtras): number[] => [
  ...vectorNumbers(norms?.q),
  ...vectorNumbers(norms?.k),
  norms?.eps ?? 0,
  norms?.weightOffset ?? 0,
]

const areHeads = (t: Tensor): boolean => t.shape.length === 3 && isRows(t)
/** Everything but the first dimension lies together. */
const isRows = (t: Tensor): boolean => {
  let together = 1
  for (let d = t.shape.length - 1; d > 0; d--) {
    if (t.dim(d) > 1 && t.stride(d) !== together) return false
    together *= t.dim(d)
  }
  return true
}
