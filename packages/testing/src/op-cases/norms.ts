import type { FloatDType, Tensor } from '@aphrodite/tensor'
import { describeTensor, FLOATS, type OpCase, rounded } from './case.ts'

/** Shape and leading stride; the norm is over the last dimension. */
const SHAPES: readonly [readonly number[], number?][] = [
  [[1, 1]],
  [[1, 64]],
  [[3, 7], 9],
  [[17, 33]],
  [[33, 100], 104],
  [[2, 129]],
  [[5, 1000]],
  [[1, 2048]],
  // The heads of a token inside a wider row, as a query/key norm sees them.
  [[7, 3, 17], 100],
  [[3, 8, 64], 1024],
]
const EPS = 1e-5
// Squares are summed in f32 over 64 lanes, so the sum is good to a few steps; root, product and weight add one each.
const STEPS = 5

export function rmsNorm(dtype: FloatDType, shape: readonly number[], stride: number | undefined, offset: number, inPlace = false): OpCase {
  return {
    op: 'rmsNorm',
    name: `rmsNorm ${describeTensor(dtype, shape, stride)}${offset ? ' weight + 1' : ''}${inPlace ? ' in place' : ''}`,
    tolerance: rounded(dtype, STEPS),
    prepare(memory, { kernels }) {
      const y = memory.output('out', shape, dtype, { stride })
      const x = inPlace ? y : memory.floats(shape, dtype, { stride })
      const w = memory.floats([shape.at(-1)!], dtype, { mean: 1 - offset, deviation: 0.1 }).view(shape.at(-1)!)
      return () => kernels.rmsNorm(y, x, w, EPS, offset)
    },
  }
}

/** `sumDtype`: of the residual. */
export function addRmsNorm(dtype: FloatDType, shape: readonly number[], stride?: number, sumDtype = dtype): OpCase {
  return {
    op: 'addRmsNorm',
    name: `addRmsNorm ${describeTensor(dtype, shape, stride)}${sumDtype === dtype ? '' : ` residual ${sumDtype}`}`,
    tolerance: rounded(dtype, STEPS),
    prepare(memory, { kernels }) {
      const y = memory.output('out', shape, dtype, { stride: stride && stride + 8 })
      const residual = memory.output('residual', shape, sumDtype, { stride, deviation: 3 })
      const x = memory.floats(shape, dtype, { stride })
      const w = memory.floats([shape.at(-1)!], dtype, { mean: 1, deviation: 0.1 }).view(shape.at(-1)!)
      return () => kernels.addRmsNorm(y, residual, x, w, EPS, 0)
    },
  }
}

export function layerNorm(dtype: FloatDType, shape: readonly number[], stride: number | undefined, bias: boolean): OpCase {
  return {
    op: 'layerNorm',
    name: `layerNorm ${describeTensor(dtype, shape, stride)}${bias ? ' + bias' : ''}`,
    // The mean is taken away first: what is left of a value near it carries the mean's rounding.
    tolerance: rounded(dtype, STEPS, 1e-6),
    prepare(memory, { kernels }) {
      const n = shape.at(-1)!
      const y = memory.output('out', shape, dtype, { stride })
      const x = memory.floats(shape, dtype, { stride, mean: 0.5 })
      const w = memory.floats([n], dtype, { mean: 1, deviation: 0.1 }).view(n)
      const b: Tensor | undefined = bias ? memory.floats([n], dtype).view(n) : undefined
      return () => kernels.layerNorm(y, x, w, b, EPS)
    },
  }
}

/** Of a 16-bit model's residual in f32. */
function widerRmsNorm(dtype: FloatDType, shape: readonly number[], stride?: number): OpCase {
  return {
    op: 'rmsNorm',
    name: `rmsNorm ${describeTensor(dtype, shape, stride)} of f32`,
    tolerance: rounded(dtype, STEPS),
    prepare(memory, { kernels }) {
      const y = memory.output('out', shape, dtype, { stride: stride && stride + 3 })
      const x = memory.floats(shape, 'f32', { stride })
      const w = memory.floats([shape.at(-1)!], dtype, { mean: 1, deviation: 0.1 }).view(shape.at(-1)!)
      return () => kernels.rmsNorm(y, x, w, EPS, 0)
    },
  }
}

const MIXED = SHAPES.filter(([shape]) => shape.length === 2)

export const NORM_CASES: readonly OpCase[] = FLOATS.flatMap((dtype) => [
  ...SHAPES.flatMap(([shape, stride], i) => [
    rmsNorm(dtype, shape, stride, 0),
    ...(shape.length === 2 ? [addRmsNorm(dtype, shape, stride)] : []),
    layerNorm(dtype, shape, stride, i % 2 === 0),
  ]),
  rmsNorm(dtype, [3, 100], 129, 1),
  rmsNorm(dtype, [17, 33], undefined, 0, true),
  ...(dtype === 'f32'
    ? []
    : MIXED.flatMap(([shape, stride]) => [widerRmsNorm(dtype, shape, stride), addRmsNorm(dtype, shape, stride, 'f32')])),
])
