import type { Activation, FloatDType, Kernels, Tensor } from '@aphrodite/tensor'
import { describeTensor, EXACT, FLOATS, type OpCase, rounded, type Tolerance } from './case.ts'

const SHAPES: readonly [readonly number[], number?][] = [
  [[1, 1]],
  [[1, 17]],
  [[3, 7], 11],
  [[17, 33], 33],
  [[33, 100], 129],
  [[2, 129]],
  [[5, 3, 7], 40],
  [[1, 5000]],
]
const ACTIVATIONS: readonly Activation[] = ['silu', 'gelu', 'geluTanh', 'relu', 'relu2']

interface Unary {
  readonly op: keyof Kernels
  readonly label: string
  readonly tolerance: (dtype: FloatDType) => Tolerance
  readonly deviation: number
  readonly call: (kernels: Kernels, out: Tensor, x: Tensor) => void
}

const UNARY: readonly Unary[] = [
  { op: 'scale', label: 'scale by 0.3', tolerance: (t) => rounded(t, 2), deviation: 2, call: (k, out, x) => k.scale(out, x, 0.3) },
  // tanh to 3 roundings, and one more for each of the quotient and the product.
  { op: 'softCap', label: 'softCap 30', tolerance: (t) => rounded(t, 4), deviation: 40, call: (k, out, x) => k.softCap(out, x, 30) },
  { op: 'softCap', label: 'softCap 50', tolerance: (t) => rounded(t, 4), deviation: 0.5, call: (k, out, x) => k.softCap(out, x, 50) },
  ...ACTIVATIONS.map(
    (activation): Unary => ({
      op: 'activate',
      label: `activate ${activation}`,
      // The tail of the normal distribution below -3 loses digits as its argument's square is rounded: small values, so of rms.
      tolerance: (t) => rounded(t, 4, activation.startsWith('gelu') ? 3e-7 : 0),
      deviation: 3,
      call: (k, out, x) => k.activate(out, x, activation),
    }),
  ),
]

function unary({ op, label, tolerance, deviation, call }: Unary, dtype: FloatDType, shape: readonly number[], stride?: number): OpCase {
  return {
    op,
    name: `${label} ${describeTensor(dtype, shape, stride)}`,
    tolerance: tolerance(dtype),
    prepare(memory, { kernels }) {
      const y = memory.output('out', shape, dtype, { stride })
      const x = memory.floats(shape, dtype, { stride: stride && stride + 5, deviation })
      return () => call(kernels, y, x)
    },
  }
}

export function add(dtype: FloatDType, shape: readonly number[], stride?: number, inPlace = false): OpCase {
  return {
    op: 'add',
    name: `add ${describeTensor(dtype, shape, stride)}${inPlace ? ' in place' : ''}`,
    tolerance: rounded(dtype, 1),
    prepare(memory, { kernels }) {
      const y = memory.output('out', shape, dtype, { stride })
      const a = inPlace ? y : memory.floats(shape, dtype, { stride: stride && stride + 1 })
      const b = memory.floats(shape, dtype)
      return () => kernels.add(y, a, b)
    },
  }
}

export function activateAndMul(dtype: FloatDType, activation: Activation, m: number, n: number, stride?: number): OpCase {
  return {
    op: 'activateAndMul',
    name: `activateAndMul ${activation} ${describeTensor(dtype, [m, n], stride)}`,
    tolerance: rounded(dtype, 5, activation.startsWith('gelu') ? 3e-7 : 0),
    prepare(memory, { kernels }) {
      const y = memory.output('out', [m, n], dtype, { stride })
      const x = memory.floats([m, 2 * n], dtype, { stride: stride && 2 * stride, deviation: 2 })
      return () => kernels.activateAndMul(y, x, activation)
    },
  }
}

export function copy(to: FloatDType, from: FloatDType, shape: readonly number[], stride?: number): OpCase {
  return {
    op: 'copy',
    name: `copy ${from} → ${describeTensor(to, shape, stride)}`,
    tolerance: EXACT,
    prepare(memory, { kernels }) {
      const y = memory.output('out', shape, to, { stride })
      // A spread that reaches denormal and overflowing halves.
      const x = memory.floats(shape, from, { stride: stride && stride + 4, deviation: to === 'f16' ? 3e4 : 1 })
      return () => kernels.copy(y, x)
    },
  }
}

const copyInts: OpCase = {
  op: 'copy',
  name: 'copy i32 [3, 7]',
  tolerance: EXACT,
  prepare(memory, { kernels }) {
    const y = memory.output('out', [3, 7], 'i32')
    const x = memory.ints(
      Array.from({ length: 21 }, (_, i) => i * 1_000_003 - 9e6),
      [3, 7],
    )
    return () => kernels.copy(y, x)
  },
}

function fill(dtype: FloatDType | 'i32', shape: readonly number[], value: number, stride?: number): OpCase {
  return {
    op: 'fill',
    name: `fill ${describeTensor(dtype, shape, stride)} with ${value}`,
    tolerance: EXACT,
    prepare(memory, { kernels }) {
      const y = memory.output('out', shape, dtype, { stride })
      return () => kernels.fill(y, value)
    },
  }
}

export const ELEMENTWISE_CASES: readonly OpCase[] = [
  ...FLOATS.flatMap((dtype) =>
    SHAPES.flatMap(([shape, stride]) => [
      ...UNARY.map((u) => unary(u, dtype, shape, stride)),
      add(dtype, shape, stride),
      fill(dtype, shape, -0.1, stride),
      ...FLOATS.map((from) => copy(dtype, from, shape, stride)),
    ]),
  ),
  ...FLOATS.flatMap((dtype) => [
    add(dtype, [7, 33], 40, true),
    ...ACTIVATIONS.map((a) => activateAndMul(dtype, a, 7, 33)),
    activateAndMul(dtype, 'silu', 1, 129),
    activateAndMul(dtype, 'silu', 17, 100, 107),
    activateAndMul(dtype, 'silu', 3, 1),
  ]),
  copyInts,
  fill('i32', [17], 7),
  fill('i32', [3, 5], -1),
]
