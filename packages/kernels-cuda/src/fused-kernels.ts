import type { Activation, AttentionBatch, AttentionOptions, PackedWeight, PagedCache, RotaryOptions, Tensor } from '@aphrodite/tensor'

/** What a fused linear does around its product. */
export interface LinearExtras {
  /** [n] */
  readonly bias?: Tensor | undefined
  /** x is rmsNorm(x, weight) first. */
  readonly norm?: NormOf | undefined
  /** out += the product. */
  readonly residual?: boolean
  /** out [m, n / 2] = activation(product[:, :n/2]) · product[:, n/2:]. */
  readonly activation?: Activation | undefined
}

export interface NormOf {
  readonly weight: Tensor
  readonly eps: number
  readonly weightOffset: number
}

/** What is done to queries and keys before they meet. */
export interface RotaryExtras {
  /** i32 [tokens] */
  readonly positions: Tensor
  /** f32 [rows, rotaryDim], as in `Kernels.rotary`. */
  readonly cosSin: Tensor
  readonly options: RotaryOptions
  /** Norms over each head, before it is turned; weights [keyDim]. */
  readonly norms?: { readonly q: Tensor; readonly k: Tensor; readonly eps: number; readonly weightOffset: number } | undefined
}

/** Ops that stand for several of `Kernels`. Intermediate results are not rounded, where those of the several are. */
export interface FusedOps {
  /** out [m, n] (or [m, n / 2]) = x [m, k] · weight [n, k]ᵀ, and what `extras` say. x and out do not overlap. */
  fusedLinear(out: Tensor, x: Tensor, weight: PackedWeight, extras: LinearExtras): void
  /** residual += rmsNorm(x, first); out = rmsNorm(residual, second): rows [m, n]. out may be x. */
  fusedNorms(out: Tensor, residual: Tensor, x: Tensor, first: NormOf, second: NormOf): void
  /**
   * One query a sequence: q and k are normalised and turned, k and v written into their slots, and out [tokens, heads · valueDim]
   * is their attention. q, k and v are left as they are.
   */
  fusedAttention(
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache: PagedCache,
    batch: AttentionBatch,
    options: AttentionOptions,
    rotary: RotaryExtras,
  ): void
  /** q is normalised and turned in place; k, normalised and turned, and v go into their slots, and are left as they are. */
  fusedRotaryWrite(q: Tensor, k: Tensor, v: Tensor, cache: PagedCache, slots: Tensor, rotary: RotaryExtras): void
}

/** Whether a device has a fused kernel for these arguments, and is not slower with it. */
export interface FusedFits {
  linear(...args: Parameters<FusedOps['fusedLinear']>): boolean
  norms(...args: Parameters<FusedOps['fusedNorms']>): boolean
  attention(...args: Parameters<FusedOps['fusedAttention']>): boolean
  rotaryWrite(...args: Parameters<FusedOps['fusedRotaryWrite']>): boolean
}
