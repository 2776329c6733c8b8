import type { FloatDType, WeightFormat } from '@aphrodite/tensor'
import { describeTensor, EXACT, FLOATS, type OpCase, rounded } from './case.ts'

interface LinearShape {
  readonly m: number
  readonly n: number
  readonly k: number
  readonly bias?: boolean
  readonly strided?: boolean
}

const SHAPES: readonly LinearShape[] = [
  { m: 1, n: 1, k: 1 },
  { m: 1, n: 16, k: 32, bias: true },
  { m: 1, n: 129, k: 100, strided: true },
  { m: 3, n: 17, k: 7, bias: true, strided: true },
  { m: 7, n: 33, k: 129 },
  { m: 17, n: 100, k: 33, bias: true },
  { m: 33, n: 7, k: 3 },
  { m: 65, n: 48, k: 64, strided: true },
  { m: 100, n: 129, k: 17, bias: true },
  { m: 129, n: 65, k: 130 },
]

/** Weight format, type of x, type of out. */
const TYPES: readonly [WeightFormat, FloatDType, FloatDType][] = [
  ['f32', 'f32', 'f32'],
  ['bf16', 'bf16', 'bf16'],
  ['bf16', 'f32', 'f32'],
  ['bf16', 'bf16', 'f32'],
  ['f16', 'f16', 'f16'],
  ['f16', 'f32', 'f32'],
  ['f16', 'f16', 'f32'],
  ['f32', 'bf16', 'f32'],
  ['f32', 'f32', 'bf16'],
  ['f32', 'f16', 'f16'],
  ['bf16', 'f16', 'f32'],
  ['f16', 'bf16', 'bf16'],
]

function linear([format, x, out]: (typeof TYPES)[number], { m, n, k, bias = false, strided = false }: LinearShape): OpCase {
  const stride = (columns: number) => (strided ? columns + 7 : undefined)
  const sizes = `${describeTensor(x, [m, k], stride(k))} · ${format} [${n}, ${k}] → ${describeTensor(out, [m, n], stride(n))}`
  return {
    op: 'linear',
    name: `linear ${sizes}${bias ? ' + bias' : ''}`,
    // A sum of k products of f32: its rounding errors add up like a random walk, far below 1e-5 for these k.
    tolerance: rounded(out, 8, 1e-5),
    prepare(memory, { kernels }) {
      const y = memory.output('out', [m, n], out, { stride: stride(n) })
      const a = memory.floats([m, k], x, { stride: stride(k) })
      const w = memory.packed(format, n, k)
      const b = bias ? memory.floats([n], x).view(n) : undefined
      return () => kernels.linear(y, a, w, b)
    },
  }
}

function embedding(format: WeightFormat, out: FloatDType, rows: number, k: number, firstRow: number, stride?: number): OpCase {
  return {
    op: 'embedding',
    name: `embedding ${format} [${rows}, ${k}] from row ${firstRow} → ${describeTensor(out, [9, k], stride)}`,
    tolerance: rounded(out, 0),
    prepare(memory, { kernels }) {
      const y = memory.output('out', [9, k], out, { stride })
      const ids = memory.ints(
        Array.from({ length: 9 }, (_, i) => (i < 3 ? [0, firstRow - 1, firstRow + rows][i]! : firstRow + memory.random.below(rows))),
      )
      const table = memory.packed(format, rows, k)
      return () => kernels.embedding(y, ids, table, firstRow)
    },
  }
}

function gatherRows(dtype: FloatDType, rows: number, k: number, stride?: number): OpCase {
  return {
    op: 'gatherRows',
    name: `gatherRows ${describeTensor(dtype, [rows, k], stride)}`,
    tolerance: EXACT,
    prepare(memory, { kernels }) {
      const x = memory.floats([rows, k], dtype, { stride })
      const picked = memory.ints(Array.from({ length: 5 }, () => memory.random.below(rows)))
      const y = memory.output('out', [5, k], dtype, { stride: stride && stride + 3 })
      return () => kernels.gatherRows(y, x, picked)
    },
  }
}

/** Sources before, inside and behind the last tokens. */
function feedTokens(n: number, lastTokens: number): OpCase {
  return {
    op: 'feedTokens',
    name: `feedTokens [${n}] of [${lastTokens}]`,
    tolerance: EXACT,
    prepare(memory, { kernels }) {
      const ids = memory.output('ids', [n], 'i32')
      const last = memory.ints(Array.from({ length: lastTokens }, () => memory.random.below(100_000)))
      const sources = memory.ints(Array.from({ length: n }, () => memory.random.below(lastTokens + 3) - 2))
      return () => kernels.feedTokens(ids, last, sources)
    },
  }
}

export const LINEAR_CASES: readonly OpCase[] = [
  ...TYPES.flatMap((types) => SHAPES.map((shape) => linear(types, shape))),
  ...FLOATS.flatMap((format) => [
    embedding(format, format, 17, 33, 0),
    embedding(format, 'f32', 100, 64, 100, 80),
    embedding(format, 'bf16', 3, 129, 7),
  ]),
  ...FLOATS.flatMap((dtype) => [gatherRows(dtype, 1, 1), gatherRows(dtype, 7, 33, 40), gatherRows(dtype, 129, 100)]),
  feedTokens(1, 1),
  feedTokens(33, 7),
  feedTokens(1000, 256),
]
