import type { CacheDType } from './dtype.ts'

/** Tokens in one page of a paged cache. A kernel may rely on it. */
export const PAGE_TOKENS = 16

/** The shape of one layer's part of one page. */
export interface PageShape {
  readonly kvHeads: number
  readonly keyDim: number
  readonly valueDim: number
  readonly dtype: CacheDType
}

/**
 * One attention layer's keys and values: `pages` pages of PAGE_TOKENS tokens, in the layout that the device attends to
 * fastest (`Device.pageBytes`). Page 0 is never given to a sequence: padding points at it. Zeros at the start.
 */
export class PagedCache {
  readonly address: number
  readonly shape: PageShape
  readonly pages: number
  constructor(address: number, shape: PageShape, pages: number) {
    this.address = address
    this.shape = shape
    this.pages = pages
  }
}
