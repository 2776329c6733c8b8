import type { Tensor } from '@aphrodite/tensor'
import { materializedTwice, notMaterialized } from './errors.ts'
import { type Env, Layer } from './module.ts'
import type { WeightMap } from './weights.ts'

export interface RMSNormOptions {
  /** Added to the weights: 1 in Gemma, whose checkpoints store how far they are from one. Default 0. */
  readonly weightOffset?: number
}

/** x / √(mean(x²) + eps) · weight, over the last dimension: per token, or per head when x is [tokens, heads, headDim]. */
export class RMSNorm extends Layer {
  readonly #size: number
  readonly #eps: number
  readonly #offset: number
  #weight: Tensor | undefined
  #path = ''

  constructor(size: number, eps: number, options: RMSNormOptions = {}) {
    super()
    this.#size = size
    this.#eps = eps
    this.#offset = options.weightOffset ?? 0
  }

  materialize(path: string, env: Env, weights: WeightMap): void {
    if (this.#weight) throw materializedTwice(this, this.#path, path)
    this.#path = path
    this.#weight = env.arena.empty([this.#size], env.dtype)
    weights.expectTensor(`${path}.weight`, this.#weight)
  }

  forward(x: Tensor): Tensor {
    const out = x.empty(x.shape)
    x.kernels.rmsNorm(out, x, loaded(this.#weight, this), this.#eps, this.#offset)
    return out
  }

  /** x = norm(x); returns x. */
  inPlace(x: Tensor): Tensor {
    x.kernels.rmsNorm(x, x, loaded(this.#weight, this), this.#eps, this.#offset)
    return x
  }

  /** residual += x; x = norm(residual); returns x. The residual may be f32, whatever x is. */
  addTo(residual: Tensor, x: Tensor): Tensor {
    x.kernels.addRmsNorm(x, residual, x, loaded(this.#weight, this), this.#eps, this.#offset)
    return x
  }
}

export interface LayerNormOptions {
  /** Default true. */
  readonly bias?: boolean
}

/** (x - mean) / √(variance + eps) · weight + bias, over the last dimension. */
export class LayerNorm extends Layer {
  readonly #size: number
  readonly #eps: number
  readonly #hasBias: boolean
  #weight: Tensor | undefined
  #path = ''
  #bias: Tensor | undefined

  constructor(size: number, eps: number, options: LayerNormOptions = {}) {
    super()
    this.#size = size
    this.#eps = eps
    this.#hasBias = options.bias ?? true
  }

  materialize(path: string, env: Env, weights: WeightMap): void {
    if (this.#weight) throw materializedTwice(this, this.#path, path)
    this.#path = path
    this.#weight = env.arena.empty([this.#size], env.dtype)
    weights.expectTensor(`${path}.weight`, this.#weight)
    if (!this.#hasBias) return
    this.#bias = env.arena.empty([this.#size], env.dtype)
    weights.expectTensor(`${path}.bias`, this.#bias)
  }

  forward(x: Tensor): Tensor {
    const out = x.empty(x.shape)
    x.kernels.layerNorm(out, x, loaded(this.#weight, this), this.#bias, this.#eps)
    return out
  }

  /** residual += x; x = norm(residual); returns x. */
  addTo(residual: Tensor, x: Tensor): Tensor {
    x.kernels.add(residual, residual, x)
    x.kernels.layerNorm(x, residual, loaded(this.#weight, this), this.#bias, this.#eps)
    return x
  }
}

function loaded(weight: Tensor | undefined, norm: Layer): Tensor {
  if (!weight) throw notMaterialized(norm)
  return weight
}
