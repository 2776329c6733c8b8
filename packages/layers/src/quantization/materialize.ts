import type { Tensor } from '@aphrodite/tensor'
import type { Env } from '../module.ts'
import type { WeightMap } from '../weights.ts'
import type { LinearMethod, LinearPart, LinearPlan, LinearWeights } from './method.ts'

/**
 * Allocates a layer by its own method, or by what the checkpoint's quantisation says for each of its matrices. Matrices
 * that are stacked here may be stored differently there (a file that leaves v_proj alone): every run of equals is then a
 * matrix of its own.
 */
export function materializeLinear(plan: LinearPlan, env: Env, weights: WeightMap, method?: LinearMethod): LinearWeights {
  const runs: { method: LinearMethod; parts: LinearPart[] }[] = []
  for (const part of plan.parts) {
    const chosen = method ?? env.quantization.methodFor(part.path)
    const last = runs.at(-1)
    if (last?.method === chosen) last.parts.push(part)
    else runs.push({ method: chosen, parts: [part] })
  }
  if (runs.length === 1) return runs[0]!.method.materialize(plan, env, weights)
  return stacked(
    runs.map(({ method, parts }) => {
      const row = parts[0]!.row
      const rows = parts.reduce((sum, p) => sum + p.from.length, 0)
      const own = { ...plan, rows, parts: parts.map((p) => ({ ...p, row: p.row - row })) }
      return { row, rows, weights: method.materialize(own, env, weights) }
    }),
  )
}

interface Stretch {
  readonly row: number
  readonly rows: number
  readonly weights: LinearWeights
}

const stacked = (stretches: readonly Stretch[]): LinearWeights => ({
  apply(out: Tensor, x: Tensor, bias?: Tensor) {
    for (const { row, rows, weights } of stretches) weights.apply(out.narrow(1, row, rows), x, bias?.narrow(0, row, rows))
  },
})
