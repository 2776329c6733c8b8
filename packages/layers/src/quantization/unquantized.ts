import type { Env } from '../module.ts'
import type { WeightMap } from '../weights.ts'
import type { LinearMethod, LinearPlan, LinearWeights, Quantization } from './method.ts'

/** Weights as they are, in the model's dtype: one packed matrix a layer, filled from `<path>.weight` of every part. */
export const unquantizedMethod: LinearMethod = {
  name: 'unquantized',
  materialize(plan: LinearPlan, env: Env, weights: WeightMap): LinearWeights {
    const weight = env.arena.packed(plan.rows, plan.input.length, env.dtype)
    for (const part of plan.parts) {
      weights.expectPacked(`${part.path}.weight`, weight, part.row, 0, [part.outFeatures, plan.inFeatures], [part.from, plan.input])
    }
    return {
      apply: (out, x, bias) => x.kernels.linear(out, x, weight, bias),
      embed: (out, ids, firstRow) => ids.kernels.embedding(out, ids, weight, firstRow),
    }
  },
}

/** A checkpoint without quantisation: every layer keeps its weights as they are. */
export const unquantized: Quantization = Object.freeze({ name: 'none', methodFor: () => unquantizedMethod })
