import type { Tensor } from '@aphrodite/tensor'
import type { Env } from '../module.ts'
import type { Range, WeightMap } from '../weights.ts'

/** One checkpoint matrix stacked into a layer. */
export interface LinearPart {
  /** Its path in the checkpoint: `model.layers.0.self_attn.q_proj`. */
  readonly path: string
  /** Outputs of the whole matrix, and those of them that this rank holds. */
  readonly outFeatures: number
  readonly from: Range
  /** Where they start among this rank's outputs of the layer. */
  readonly row: number
}

/** A linear or embedding layer as one rank holds it. */
export interface LinearPlan {
  readonly path: string
  readonly inFeatures: number
  /** This rank's inputs. */
  readonly input: Range
  readonly parts: readonly LinearPart[]
  /** This rank's outputs: the sum of the parts', padding included. */
  readonly rows: number
}

/** A layer's weights in the hands of its method. Adds the bias when it gets one. */
export interface LinearWeights {
  apply(out: Tensor, x: Tensor, bias?: Tensor): void
  /** For layers whose rows are looked up as well; absent where a method cannot. */
  embed?(out: Tensor, ids: Tensor, firstRow: number): void
}

/** A strategy of storing and multiplying a matrix: what it allocates, what it loads under which names, how it computes. */
export interface LinearMethod {
  readonly name: string
  materialize(plan: LinearPlan, env: Env, weights: WeightMap): LinearWeights
}

/** Which method a layer gets, by its path in the checkpoint. The engine makes one from the checkpoint's config. */
export interface Quantization {
  readonly name: string
  methodFor(path: string): LinearMethod
}
