import type { Communicator, Tensor } from '@aphrodite/tensor'
import { layersError, materializedTwice, notMaterialized } from './errors.ts'
import { type Env, Layer } from './module.ts'
import { materializeLinear } from './quantization/materialize.ts'
import type { LinearMethod, LinearPart, LinearWeights } from './quantization/method.ts'
import { type Share, wholeOf } from './sharding.ts'
import type { Range, WeightMap } from './weights.ts'

export interface LinearOptions {
  /** Adds a vector to the outputs. Default false. */
  readonly bias?: boolean
  /** How the weight is stored and multiplied. Default: what the checkpoint's quantisation says for the layer's path. */
  readonly linearMethod?: LinearMethod | undefined
}

/** A matrix that a layer stacks: rows [offset, offset + outFeatures) of a checkpoint tensor of `total` rows. */
export interface Part {
  /** The last element of its path in the checkpoint; undefined: the layer's own. */
  readonly name?: string
  readonly outFeatures: number
  readonly offset: number
  readonly total: number
  /** Of the outputs; every rank holds all of them without. */
  readonly share?: Share
}

/** out [tokens, outFeatures] = x [tokens, inFeatures] · weightᵀ (+ bias). Sizes are the whole layer's; a rank holds its share. */
export abstract class LinearLayer extends Layer {
  readonly #inFeatures: number
  readonly #parts: readonly Part[]
  readonly #inputShare: Share | undefined
  readonly #options: LinearOptions
  #weights: LinearWeights | undefined
  #bias: Tensor | undefined
  #tp: Communicator | undefined
  #path = ''
  /** This rank's inputs. */
  protected input: Range
  /** This rank's outputs of each part, and all of them together. */
  protected outputs: readonly Range[] = []
  protected width = 0

  constructor(inFeatures: number, parts: readonly Part[], options: LinearOptions, inputShare?: Share) {
    super()
    for (const n of [inFeatures, ...parts.map((p) => p.outFeatures)])
      if (!Number.isSafeInteger(n) || n < 1) throw layersError('BAD_LAYER', `a linear layer cannot have ${n} features`)
    this.#inFeatures = inFeatures
    this.#parts = parts
    this.#inputShare = inputShare
    this.#options = options
    this.input = wholeOf(inFeatures)
  }

  materialize(path: string, env: Env, weights: WeightMap): void {
    if (this.#weights) throw materializedTwice(this, this.#path, path)
    const tp = env.tp
    this.#tp = tp
    this.#path = path
    if (this.#inputShare) this.input = this.#inputShare(path, tp)
    this.outputs = this.#parts.map((p) => p.share?.(path, tp) ?? wholeOf(p.outFeatures))
    this.width = this.outputs.reduce((sum, r) => sum + r.length, 0)
    let row = 0
    const parts: LinearPart[] = this.#parts.map((p, i) => {
      const { start, length } = this.outputs[i]!
      row += length
      return {
        path: p.name === undefined ? path : sibling(path, p.name),
        outFeatures: p.total,
        from: { start: p.offset + start, length },
        row: row - length,
      }
    })
    const plan = { path, inFeatures: this.#inFeatures, input: this.input, parts, rows: this.width }
    this.#weights = materializeLinear(plan, env, weights, this.#options.linearMethod)
    if (this.#options.bias) this.#bias = this.#materializeBias(parts, env, weights)
  }

  /** Ranks that hold a share of the inputs are summed, so the bias is the first one's alone. */
  #materializeBias(parts: readonly LinearPart[], env: Env, weights: WeightMap): Tensor | undefined {
    if (this.#inputShare && env.tp.rank > 0) {
      for (const part of parts) weights.ignore(`${part.path}.bias`)
      return undefined
    }
    const bias = env.arena.empty([this.width], env.dtype)
    for (const { path, outFeatures, from, row } of parts)
      weights.expectTensor(`${path}.bias`, bias.narrow(0, row, from.length), [outFeatures], [from])
    return bias
  }

  /** This rank's outputs, [tokens, width]. */
  protected multiply(x: Tensor): Tensor {
    const weights = this.#weights
    if (!weights) throw notMaterialized(this, `[${this.#inFeatures}] → [${this.#parts.map((p) => p.outFeatures).join(' + ')}]`)
    if (x.lastDim !== this.input.length) throw this.#wrongInput(x)
    const out = x.empty([x.dim(0), this.width])
    weights.apply(out, x, this.#bias)
    return out
  }

  /** Of each part, what another rank holds. */
  protected outputsOf(rank: number): Range[] {
    return this.#parts.map((p) => p.share?.(this.#path, { rank, size: this.tp.size }) ?? wholeOf(p.outFeatures))
  }

  protected get tp(): Communicator {
    if (!this.#tp) throw notMaterialized(this)
    return this.#tp
  }

  #wrongInput(x: Tensor): Error {
    const { size, rank } = this.tp
    const [expected, got] = [this.input.length, x.lastDim]
    if (size === 1 || !this.#inputShare)
      return layersError('BAD_LAYER', `${this.#path}: it takes ${expected} inputs, and was given [${x.shape}]`)
    return layersError(
      'CANNOT_SHARD',
      `${this.#path}: rank ${rank} of ${size} holds ${expected} of ${this.#inFeatures} inputs, and was given [${x.shape}], with ${got}. ` +
        'It must be shared like the layer before it: give both the same `unit`, or the attention’s `heads`; or say inputIsParallel: false.',
    )
  }
}

const sibling = (path: string, name: string): string => path.slice(0, path.lastIndexOf('.') + 1) + name

/** Parts that the checkpoint names apart, or (without names) that lie one after the other in the layer's own tensor. */
export function partsOf(sizes: readonly number[], names: readonly string[] | undefined, shares: readonly Share[]): Part[] {
  const total = sizes.reduce((a, b) => a + b, 0)
  let offset = 0
  return sizes.map((outFeatures, i) => {
    offset += outFeatures
    const share = shares[i]!
    return names
      ? { name: names[i]!, outFeatures, share, offset: 0, total: outFeatures }
      : { outFeatures, share, offset: offset - outFeatures, total }
  })
}
