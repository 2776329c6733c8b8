import type { AttentionOptions, Tensor } from '@aphrodite/tensor'
import type { PagedSpec } from './cache.ts'
import { layersError, materializedTwice, notMaterialized } from './errors.ts'
import { type CachingLayer, type Env, Layer } from './module.ts'
import type { HeadShape } from './qkv.ts'
import { headShare } from './sharding.ts'
import type { Step } from './step.ts'
import type { Range, WeightMap } from './weights.ts'

/** Whole sizes; a rank attends with its share of the heads. */
export interface AttentionSpec extends HeadShape {
  /** Size of a value; default headDim. */
  readonly valueDim?: number
  /** Multiplies q · k. Default 1 / √headDim. */
  readonly scale?: number
  /** A token sees itself and so many less one before it. Default 0: all. */
  readonly window?: number
  /** scores = cap · tanh(scores / cap). Default 0: off. */
  readonly softCap?: number
  /** ALiBi: scores fall with the distance, for each head at a rate of its own. Default false. */
  readonly alibi?: boolean
  /** Name of a vector beside this layer in the checkpoint: for each head a logit that takes part in the softmax and has no value. */
  readonly sinks?: string
}

/** Causal attention over the paged cache. It appends k and v to the cache on the way. */
export class Attention extends Layer implements CachingLayer {
  cacheIndex = -1
  readonly #spec: AttentionSpec
  #options: AttentionOptions
  #kvHeads: number
  #path: string | undefined

  constructor(spec: AttentionSpec) {
    super()
    if (spec.heads % spec.kvHeads !== 0) throw layersError('BAD_LAYER', `${spec.heads} heads cannot share ${spec.kvHeads} key heads evenly`)
    this.#spec = spec
    this.#kvHeads = spec.kvHeads
    this.#options = { scale: spec.scale ?? spec.headDim ** -0.5, window: spec.window ?? 0, softCap: spec.softCap ?? 0 }
  }

  materialize(path: string, env: Env, weights: WeightMap): void {
    if (this.#path !== undefined) throw materializedTwice(this, this.#path, path)
    this.#path = path
    const { heads, alibi, sinks } = this.#spec
    const share = headShare(path, this.#spec, env.tp)
    const held = share.heads
    this.#kvHeads = share.kvHeads.length
    const perHead = (): Tensor => env.arena.empty([held.length], 'f32')
    if (alibi) {
      const alibiSlopes = perHead()
      env.device.upload(alibiSlopes, slopesOf(heads, held))
      this.#options = { ...this.#options, alibiSlopes }
    }
    if (sinks) {
      const vector = perHead()
      weights.expectTensor(path.slice(0, path.lastIndexOf('.') + 1) + sinks, vector, [heads], [held])
      this.#options = { ...this.#options, sinks: vector }
    }
  }

  cacheSpec(): PagedSpec {
    const { headDim, valueDim = headDim, window = 0 } = this.#spec
    return { kind: 'paged', kvHeads: this.#kvHeads, keyDim: headDim, valueDim, window }
  }

  /** Operations of one token for each token that it sees (a window is not looked at): scores, and the sum of values. Whole sizes. */
  get flopsPerTokenSeen(): number {
    const { heads, headDim, valueDim = headDim } = this.#spec
    return 2 * heads * (headDim + valueDim)
  }

  /** q [tokens, heads, headDim], k [tokens, kvHeads, headDim], v [tokens, kvHeads, valueDim] → [tokens, heads · valueDim] */
  forward(q: Tensor, k: Tensor, v: Tensor, step: Step): Tensor {
    if (this.#path === undefined) throw notMaterialized(this)
    const cache = step.kvCaches[this.cacheIndex]
    const batch = cache && step.attnMetadata[cache.group]
    if (cache?.kind !== 'paged' || batch?.kind !== 'paged')
      throw layersError('BAD_LAYER', `${this.#path}: the step has no paged cache for attention layer ${this.cacheIndex}`)
    const out = q.empty([q.dim(0), q.dim(1) * v.dim(2)])
    q.kernels.writeCache(cache.pages, k, v, batch.slots)
    q.kernels.pagedAttention(out, q, cache.pages, batch, this.#options)
    return out
  }
}

/** Geometric slopes of ALiBi; a head count between powers of two takes every other slope of the next power for the rest. */
function slopesOf(heads: number, held: Range): Float32Array {
  const power = 2 ** Math.floor(Math.log2(heads))
  const slope = (i: number): number => (i < power ? 2 ** ((-8 * (i + 1)) / power) : 2 ** ((-4 * (2 * (i - power) + 1)) / power))
  return Float32Array.from({ length: held.length }, (_, i) => slope(held.start + i))
}
