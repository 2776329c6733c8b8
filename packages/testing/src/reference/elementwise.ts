import { isFloat, type Kernels, type Tensor } from '@aphrodite/tensor'
import { testingError } from '../errors.ts'
import { ACTIVATIONS } from './math.ts'
import { requireFloats, requireRows, requireShape, requireThat, type Views } from './view.ts'

type ElementwiseOps = Pick<Kernels, 'add' | 'scale' | 'softCap' | 'activate' | 'activateAndMul' | 'copy' | 'fill'>

export const elementwiseOps = (views: Views): ElementwiseOps => {
  function map(op: string, out: Tensor, x: Tensor, fn: (v: number) => number): void {
    requireFloats(op, { out, x })
    requireShape(op, 'out', out, x.shape)
    views.write(out, views.read(x).map(fn))
  }

  return {
    add(out, a, b) {
      requireFloats('add', { out, a, b })
      requireShape('add', 'out', out, a.shape)
      requireShape('add', 'b', b, a.shape)
      const right = views.read(b)
      views.write(
        out,
        views.read(a).map((v, i) => v + right[i]!),
      )
    },
    scale: (out, x, factor) => map('scale', out, x, (v) => v * factor),
    softCap: (out, x, cap) => map('softCap', out, x, (v) => cap * Math.tanh(v / cap)),
    activate: (out, x, activation) => map('activate', out, x, ACTIVATIONS[activation]),
    activateAndMul(out, x, activation) {
      requireFloats('activateAndMul', { out, x })
      const n = out.lastDim
      requireThat('activateAndMul', x.lastDim === 2 * n && x.rows === out.rows, `out is [${out.shape}], x is [${x.shape}]`)
      const values = views.read(x)
      const y = Float64Array.from({ length: out.size }, (_, i) => {
        const at = Math.floor(i / n) * 2 * n + (i % n)
        return ACTIVATIONS[activation](values[at]!) * values[at + n]!
      })
      views.write(out, y)
    },
    copy(out, x) {
      requireShape('copy', 'out', out, x.shape)
      requireRows('copy', 'out', out)
      requireRows('copy', 'x', x)
      if (out.dtype !== x.dtype && !(isFloat(out.dtype) && isFloat(x.dtype)))
        throw testingError('BAD_DTYPE', `copy: ${x.dtype} into ${out.dtype}`)
      views.write(out, views.read(x))
    },
    fill(out, value) {
      views.write(out, new Float64Array(out.size).fill(value))
    },
  }
}
