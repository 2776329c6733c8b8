import type { Tensor } from '@aphrodite/tensor'
import { LinearLayer, type LinearOptions, partsOf } from './linear-layer.ts'
import { keysOf, queriesOf } from './sharding.ts'

export interface HeadShape {
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
}

export interface QKVParallelOptions extends LinearOptions {
  /** Names of the three in the checkpoint. Default q_proj, k_proj, v_proj. */
  readonly names?: readonly [q: string, k: string, v: string]
  /** The checkpoint holds q, k and v one after the other in a single tensor under the layer's own name. Default false. */
  readonly fused?: boolean
}

/**
 * Query, key and value projections as one matrix. Ranks share it in whole groups of a key head and its queries, some one more
 * than others where they do not divide; fewer key heads than ranks are held by several ranks each, which share their queries.
 * `RowParallelLinear` behind the attention is given the same `heads`. Throws CANNOT_SHARD for more ranks than heads.
 */
export class QKVParallelLinear extends LinearLayer {
  readonly #headDim: number
  constructor(inFeatures: number, shape: HeadShape, options: QKVParallelOptions = {}) {
    const names = options.fused ? undefined : (options.names ?? ['q_proj', 'k_proj', 'v_proj'])
    const queries = shape.heads * shape.headDim
    const keys = shape.kvHeads * shape.headDim
    super(inFeatures, partsOf([queries, keys, keys], names, [queriesOf(queries, shape), keysOf(keys, shape), keysOf(keys, shape)]), options)
    this.#headDim = shape.headDim
  }

  /** q [tokens, heads, headDim] and k, v [tokens, kvHeads, headDim]: this rank's heads, as views of one buffer. */
  heads(x: Tensor): { q: Tensor; k: Tensor; v: Tensor } {
    const out = this.multiply(x)
    let start = 0
    const [q, k, v] = this.outputs.map(({ length }) => {
      start += length
      return out.narrow(1, start - length, length).view(-1, length / this.#headDim, this.#headDim)
    })
    return { q: q!, k: k!, v: v! }
  }
}
