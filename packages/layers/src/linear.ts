import type { Tensor } from '@aphrodite/tensor'
import { LinearLayer, type LinearOptions, partsOf } from './linear-layer.ts'
import { type SharingOptions, sharing } from './sharding.ts'
import type { Range } from './weights.ts'

/** Every rank holds all of it. */
export class ReplicatedLinear extends LinearLayer {
  constructor(inFeatures: number, outFeatures: number, options: LinearOptions = {}) {
    super(inFeatures, [{ outFeatures, offset: 0, total: outFeatures }], options)
  }
  /** x [tokens, inFeatures] → [tokens, outFeatures] */
  forward(x: Tensor): Tensor {
    return this.multiply(x)
  }
}

export interface ColumnParallelOptions extends LinearOptions, SharingOptions {
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
    const names = Array.isArray(parts) ? undefined : Object.keys(parts)
    super(
      inFeatures,
      partsOf(
        sizes,
        names,
        sizes.map((n) => sharing(n, options)),
      ),
      options,
    )
    this.#whole = sizes
    this.#gather = options.gatherOutput ?? false
  }

  /** x [tokens, inFeatures] → [tokens, this rank's outputs, part after part]; with gatherOutput the outputs of all ranks, part after part. */
  forward(x: Tensor): Tensor {
    const local = this.multiply(x)
    return this.#gather && this.tp.size > 1 ? this.#gathered(local) : local
  }

  #gathered(local: Tensor): Tensor {
    const shares = Array.from({ length: this.tp.size }, (_, rank) => this.outputsOf(rank))
    const out = local.empty([local.dim(0), this.#whole.reduce((a, b) => a + b, 0)])
    let from = 0
    let to = 0
    for (const [i, whole] of this.#whole.entries()) {
      const { length } = this.outputs[i]!
      const mine = local.narrow(1, from, length)
      const part = out.narrow(1, to, whole)
      if (length * this.tp.size === whole) this.tp.allGather(part, mine)
      else
        this.#gatherUneven(
          part,
          mine,
          shares.map((share) => share[i]!),
        )
      from += length
      to += whole
    }
    return out
  }

  /** Ranks exchange equally much: shares are padded to the widest. */
  #gatherUneven(out: Tensor, mine: Tensor, shares: readonly Range[]): void {
    const widest = shares.reduce((most, { length }) => Math.max(most, length), 0)
    const padded = mine.zeros([mine.dim(0), widest])
    mine.kernels.copy(padded.narrow(1, 0, mine.lastDim), mine)
    const all = mine.empty([mine.dim(0), widest * this.tp.size])
    this.tp.allGather(all, padded)
    for (const [rank, { start, length }] of shares.entries())
      mine.kernels.copy(out.narrow(1, start, length), all.narrow(1, rank * widest, length))
  }
}

/** One matrix, shared among the ranks by its outputs. */
export class ColumnParallelLinear extends MergedColumnParallelLinear {
  constructor(inFeatures: number, outFeatures: number, options: ColumnParallelOptions = {}) {
    super(inFeatures, [outFeatures], options)
  }
}

export interface RowParallelOptions extends LinearOptions, SharingOptions {
  /** x is already this rank's share of the inputs. Default true. */
  readonly inputIsParallel?: boolean
  /** Sums the ranks' results. Default true; without it each rank goes on with its summand, of which the first has the bias. */
  readonly reduceResults?: boolean
}

/**
 * One matrix, shared among the ranks by its inputs; their results are summed. Its inputs are cut like the outputs of the layer in
 * front: by the same `unit` if that has one, by the same `heads` behind an attention.
 */
export class RowParallelLinear extends LinearLayer {
  readonly #inputIsParallel: boolean
  readonly #reduceResults: boolean
  constructor(inFeatures: number, outFeatures: number, options: RowParallelOptions = {}) {
    super(inFeatures, [{ outFeatures, offset: 0, total: outFeatures }], options, sharing(inFeatures, options))
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
