import type { Kernels, Tensor } from '@aphrodite/tensor'
import { requireFloats, requireShape, type Views } from './view.ts'

export const normOps = (views: Views): Pick<Kernels, 'rmsNorm' | 'addRmsNorm' | 'layerNorm'> => {
  function rms(op: string, out: Tensor, x: Tensor, weight: Tensor, eps: number, weightOffset: number): void {
    requireFloats(op, x.dtype === 'f32' ? { out, weight } : { out, x, weight })
    requireFloats(op, { x })
    requireShape(op, 'out', out, x.shape)
    requireShape(op, 'weight', weight, [x.lastDim])
    const w = views.read(weight)
    const y = eachRow(views.read(x), x.lastDim, (row) => {
      const inverse = 1 / Math.sqrt(row.reduce((sum, v) => sum + v * v, 0) / row.length + eps)
      return row.map((v, i) => v * inverse * (w[i]! + weightOffset))
    })
    views.write(out, y)
  }

  return {
    rmsNorm: (out, x, weight, eps, weightOffset) => rms('rmsNorm', out, x, weight, eps, weightOffset),

    addRmsNorm(out, residual, x, weight, eps, weightOffset) {
      requireFloats('addRmsNorm', residual.dtype === 'f32' ? { out, x, weight } : { out, residual, x, weight })
      requireShape('addRmsNorm', 'x', x, residual.shape)
      const b = views.read(x)
      views.write(
        residual,
        views.read(residual).map((a, i) => a + b[i]!),
      )
      rms('addRmsNorm', out, residual, weight, eps, weightOffset)
    },

    layerNorm(out, x, weight, bias, eps) {
      requireFloats('layerNorm', { out, x, weight, bias })
      requireShape('layerNorm', 'out', out, x.shape)
      requireShape('layerNorm', 'weight', weight, [x.lastDim])
      if (bias) requireShape('layerNorm', 'bias', bias, [x.lastDim])
      const w = views.read(weight)
      const b = bias && views.read(bias)
      const y = eachRow(views.read(x), x.lastDim, (row) => {
        const mean = row.reduce((sum, v) => sum + v, 0) / row.length
        const variance = row.reduce((sum, v) => sum + (v - mean) ** 2, 0) / row.length
        const inverse = 1 / Math.sqrt(variance + eps)
        return row.map((v, i) => (v - mean) * inverse * w[i]! + (b ? b[i]! : 0))
      })
      views.write(out, y)
    },
  }
}

function eachRow(values: Float64Array, length: number, fn: (row: Float64Array) => Float64Array): Float64Array {
  const out = new Float64Array(values.length)
  for (let at = 0; at < values.length; at += length) out.set(fn(values.subarray(at, at + length)), at)
  return out
}
