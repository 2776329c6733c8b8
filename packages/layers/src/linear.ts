import type { Communicator, Tensor } from '@aphrodite/tensor'
import { layersError } from './errors.ts'
import { type Env, Layer } from './module.ts'
import { materializeLinear } from './quantization/materialize.ts'
import type { LinearMethod, LinearPart, LinearWeights } from './quantization/method.ts'
import { shareOf, wholeOf } from './sharding.ts'
import type { Range, WeightMap } from './weights.ts'

export interface LinearOptions {
  /** Adds a vector to the outputs. Default false. */
  readonly bias?: boolean
  /** How the weight is stored and multiplied. Default: what the checkpoint's quantisation says for the layer's path. */
  readonly linearMethod?: LinearMethod | undefined
}

/** A matrix that a layer stacks: rows [offset, offset + outFeatures) of a checkpoint tensor of `total` rows, shared in whole units. */
interface Part {
  /** The last element of its path in the checkpoint; undefined: the layer's own. */
  readonly name?: string
  readonly outFeatures: number
  readonly unit: number
  readonly offset: number
  readonly total: number
}

/** out [tokens, outFeatures] = x [tokens, inFeatures] · weightᵀ (+ bias). Sizes are the whole layer's; a rank holds its share. */
abstract class LinearLayer extends Layer {
  readonly #inFeatures: number
  readonly #parts: readonly Part[]
  readonly #split: 'none' | 'outputs' | 'inputs'
  readonly #options: LinearOptions
  #weights: LinearWeights | undefined
  #bias: Tensor | undefined
  #tp: Communicator | undefined
  /** This rank's inputs. */
  protected input: Range
  /** This rank's outputs of each part, and all of them together. */
  protected outputs: readonly Range[] = []
  protected width = 0

  constructor(inFeatures: number, parts: readonly Part[], split: 'none' | 'outputs' | 'inputs', options: LinearOptions) {
    super()
    for (const n of [inFeatures, ...parts.map((p) => p.outFeatures)])
      if (!Number.isSafeInteger(n) || n < 1) throw layersError('BAD_LAYER', `a linear layer cannot have ${n} features`)
    this.#inFeatures = inFeatures
    this.#parts = parts
    this.#split = split
    this.#options = options
    this.input = wholeOf(inFeatures)
  }

  materialize(path: string, env: Env, weights: WeightMap): void {
    const tp = env.tp
    this.#tp = tp
    if (this.#split === 'inputs') this.input = shareOf(path, this.#inFeatures, 1, tp)
    this.outputs = this.#parts.map((p) => (this.#split === 'outputs' ? shareOf(path, p.outFeatures, p.unit, tp) : wholeOf(p.outFeatures)))
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
    if (this.#split === 'inputs' && env.tp.rank > 0) {
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
    const out = x.empty([x.dim(0), this.width])
    this.#materialized.apply(out, x, this.#bias)
    return out
  }

  protected get tp(): Communicator {
    if (!this.#tp) throw layersError('BAD_LAYER', 'forward of a linear layer was called before the model was materialised')
    return this.#tp
  }

  get #materialized(): LinearWeights {
    if (!this.#weights) throw layersError('BAD_LAYER', 'forward of a linear layer was called before the model was materialised')
    return this.#weights
  }
}

const sibling = (path: string, name: string): string => path.slice(0, path.lastIndexOf('.') + 1) + name
const own = (outFeatures: number): Part => ({ outFeatures, unit: 1, offset: 0, total: outFeatures })

/** Parts that the checkpoint names apart, or (without names) that lie one after the other in the layer's own tensor. */
function partsOf(sizes: readonly number[], names: readonly string[] | undefined, unit: number): Part[] {
  const total = sizes.reduce((a, b) => a + b, 0)
  let offset = 0
  return sizes.map((outFeatures, i) => {
    offset += outFeatures
    return names
      ? { name: names[i]!, outFeatures, unit, offset: 0, total: outFeatures }
      : { outFeatures, unit, offset: offset - outFeatures, total }
  })
}

/** Every rank holds all of it. */
export class ReplicatedLinear extends LinearLayer {
  constructor(inFeatures: number, outFeatures: number, options: LinearOptions = {}) {
    super(inFeatures, [own(outFeatures)], 'none', options)
  }
  /** x [tokens, inFeatures] → [tokens, outFeatures] */
  forward(x: Tensor): Tensor {
    return this.multiply(x)
  }
}

export interface ColumnParallelOptions extends LinearOptions {
  /** Brings the outputs of all ranks together. Default false: each rank goes on with its own. */
  readonly gatherOutput?: boolean
}

/** Several matrices with the same input, stored and multiplied as one, each shared among the ranks by its outputs. */
export class MergedColumnParallelLinear extends LinearLayer {
  readonly #whole: readonly number[]
  readonly #gather: boolean
  /**
   * `parts`: outputs of each, under their names in the checkpoint (`{ gate_proj: n, up_proj: n }`); or a list of sizes when
   * the checkpoint holds them one after the other in a single tensor under the layer's own name.
   */
  constructor(inFeatures: number, parts: Readonly<Record<string, number>> | readonly number[], options: ColumnParallelOptions = {}) {
    const sizes: readonly number[] = Array.isArray(parts) ? parts : Object.values(parts)
    super(inFeatures, partsOf(sizes, Array.isArray(parts) ? undefined : Object.keys(parts), 1), 'outputs', options)
    this.#whole = sizes
    this.#gather = options.gatherOutput ?? false
  }

  /** x [tokens, inFeatures] → [tokens, this rank's outputs, part after part]; with gatherOutput the outputs of all ranks, part after part. */
  forward(x: Tensor): Tensor {
    const local = this.multiply(x)
    return this.#gather && this.tp.size > 1 ? this.#gathered(local) : local
  }

  #gathered(local: Tensor): Tensor {
    const tokens = local.dim(0)
    const out = local.empty([tokens, this.#whole.reduce((a, b) => a + b, 0)])
    let from = 0
    let to = 0
    for (const [i, whole] of this.#whole.entries()) {
      const { length } = this.outputs[i]!
      if (length * this.tp.size !== whole)
        throw layersError('CANNOT_SHARD', `gatherOutput: ${whole} outputs are not equal shares of ${this.tp.size} ranks`)
      const mine = local.empty([tokens, length])
      local.kernels.copy(mine, local.narrow(1, from, length))
      const all = local.empty([tokens, whole])
      this.tp.allGather(all, mine)
      local.kernels.copy(out.narrow(1, to, whole), all)
      from += length
      to += whole
    }
    return out
  }
}

/** One matrix, shared among the ranks by its outputs. */
export class ColumnParallelLinear extends MergedColumnParallelLinear {
  constructor(inFeatures: number, outFeatures: number, options: ColumnParallelOptions = {}) {
    super(inFeatures, [outFeatures], options)
  }
}

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

/** Query, key and value projections as one matrix. Ranks share it by heads; fewer key heads than ranks are held by several each. */
export class QKVParallelLinear extends LinearLayer {
  readonly #headDim: number
  constructor(inFeatures: number, { heads, kvHeads, headDim }: HeadShape, options: QKVParallelOptions = {}) {
    const names = options.fused ? undefined : (options.names ?? ['q_proj', 'k_proj', 'v_proj'])
    super(inFeatures, partsOf([heads * headDim, kvHeads * headDim, kvHeads * headDim], names, headDim), 'outputs', options)
    this.#headDim = headDim
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

export interface RowParallelOptions extends LinearOptions {
  /** x is already this rank's share of the inputs. Default true. */
  readonly inputIsParallel?: boolean
  /** Sums the ranks' results. Default true; without it each rank goes on with its summand, of which the first has the bias. */
  readonly reduceResults?: boolean
}

/** One matrix, shared among the ranks by its inputs; their results are summed. */
export class RowParallelLinear extends LinearLayer {
  readonly #inputIsParallel: boolean
  readonly #reduceResults: boolean
  constructor(inFeatures: number, outFeatures: number, options: RowParallelOptions = {}) {
    super(inFeatures, [own(outFeatures)], 'inputs', options)
    this.#inputIsParallel = options.inputIsParallel ?? true
    this.#reduceResults = options.reduceResults ?? true
  }

  /** x [tokens, this rank's inputs] (or all of them, without inputIsParallel) → [tokens, outFeatures] */
  forward(x: Tensor): Tensor {
    const out = this.multiply(this.#inputIsParallel ? x : x.narrow(1, this.input.start, this.input.length))
    if (this.#reduceResults && this.tp.size > 1) this.tp.allReduce(out)
    return out
  }
}
