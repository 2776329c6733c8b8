import { PAGE_TOKENS, type PageShape, sizeOf } from '@aphrodite/tensor'

/** Keys and values of all heads of a page, dims padded to 16 elements (`native/include/cache_layout.h`). */
export function pageBytes({ kvHeads, keyDim, valueDim, dtype }: PageShape): number {
  const padded = (dim: number): number => Math.ceil(dim / 16) * 16
  return kvHeads * PAGE_TOKENS * (padded(keyDim) + padded(valueDim)) * sizeOf(dtype)
}
