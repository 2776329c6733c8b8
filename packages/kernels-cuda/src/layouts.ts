import { PAGE_TOKENS, type PageShape, sizeOf, type WeightFormat } from '@aphrodite/tensor'

/** Keys and values of all heads of a page, dims padded to 16 elements (`native/include/cache_layout.h`). */
export function pageBytes({ kvHeads, keyDim, valueDim, dtype }: PageShape): number {
  const padded = (dim: number): number => Math.ceil(dim / 16) * 16
  return kvHeads * PAGE_TOKENS * (padded(keyDim) + padded(valueDim)) * sizeOf(dtype)
}

/** Row-major, rows of a multiple of 32 elements (`native/include/packed.h`). */
export const packedBytes = (format: WeightFormat, outFeatures: number, inFeatures: number): number =>
  outFeatures * Math.ceil(inFeatures / 32) * 32 * sizeOf(format)
