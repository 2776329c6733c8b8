import type { AttentionBatch, PagedCache, Tensor } from '@aphrodite/tensor'

/** What a layer remembers between steps. The engine groups equal kinds, sizes them and pages them; a model never sees a page table. */
export type CacheSpec = PagedSpec | StateSpec

/** Keys and values of every token, or of the last `window` tokens (0: every token). Heads are this rank's. */
export interface PagedSpec {
  readonly kind: 'paged'
  readonly kvHeads: number
  readonly keyDim: number
  readonly valueDim: number
  readonly window: number
}

/** A fixed amount for each sequence: convolution and state-space layers. */
export interface StateSpec {
  readonly kind: 'state'
  readonly tensors: Readonly<Record<string, { readonly shape: readonly number[]; readonly dtype: 'f32' | 'f16' | 'bf16' }>>
}

/** What a layer gets for its spec. `group` is where its metadata is in `Step.attnMetadata`. */
export type LayerCache = PagedLayerCache | StateLayerCache
export interface PagedLayerCache {
  readonly kind: 'paged'
  readonly group: number
  readonly pages: PagedCache
}
export interface StateLayerCache {
  readonly kind: 'state'
  readonly group: number
  /** Each [slots, ...shape]; a sequence owns one slot. */
  readonly tensors: Readonly<Record<string, Tensor>>
}

/** What the layers of one group need to know about a step. */
export type AttentionMetadata = PagedMetadata | StateMetadata
export interface PagedMetadata extends AttentionBatch {
  readonly kind: 'paged'
}
export interface StateMetadata {
  readonly kind: 'state'
  /** i32 [sequences] */
  readonly slots: Tensor
  /** i32 [sequences]: 1 where the sequence starts here and its state counts as zeros. */
  readonly fresh: Tensor
  /** i32 [sequences + 1] */
  readonly queryStarts: Tensor
}
