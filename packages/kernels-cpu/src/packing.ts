import { PAGE_TOKENS, type PageShape, sizeOf, type WeightFormat } from '@aphrodite/tensor'

const BYTES: Readonly<Record<WeightFormat, number>> = { f32: 4, bf16: 2, f16: 2 }

/** Panels of 16 outputs; a step of a panel is 64 bytes: 16 outputs times 4 bytes of inputs. Both sizes are padded. */
export function packedBytes(format: WeightFormat, outFeatures: number, inFeatures: number): number {
  return Math.ceil(outFeatures / 16) * Math.ceil((inFeatures * BYTES[format]) / 4) * 64
}

const LINE_BYTES = 64
const LANES = 16

/** Keys and values of all heads, as lines of 64 bytes: 16 lanes of one number of f32, two of 16 or four of 8 bits (`native/include/attention.h`). */
export function pageBytes({ kvHeads, keyDim, valueDim, dtype }: PageShape): number {
  const perLane = 4 / sizeOf(dtype)
  const lines = Math.ceil(keyDim / perLane) + Math.ceil(valueDim / LANES) * (PAGE_TOKENS / perLane)
  return kvHeads * lines * LINE_BYTES
}
