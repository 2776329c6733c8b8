import { type Communicator, singleRank } from '@aphrodite/tensor'
import { lockstep, Random } from '@aphrodite/testing'
import { describe, expect, test } from 'vitest'
import { ColumnParallelLinear, MergedColumnParallelLinear, QKVParallelLinear, ReplicatedLinear, RowParallelLinear } from '../src/linear.ts'
import type { LinearMethod } from '../src/quantization/method.ts'
import { unquantizedMethod } from '../src/quantization/unquantized.ts'
import { type Bench, Block, bench, checkpoint, materialize, read, times, valuesOf, worst } from './harness.ts'

const TOKENS = 3
const K = 12
const x = new Random(7).normals(TOKENS * K)
/** float32 outputs of sums of a dozen products near 1. */
const CLOSE = 1e-5

/** Columns [start, start + length) of rows of n. */
const columns = (values: readonly number[], n: number, start: number, length: number): number[] =>
  Array.from({ length: (values.length / n) * length }, (_, i) => values[Math.floor(i / length) * n + start + (i % length)]!)

const weights = checkpoint({
  'a.weight': [8, K],
  'a.bias': [8],
  'b.weight': [4, K],
  'b.bias': [4],
  'q_proj.weight': [16, K],
  'q_proj.bias': [16],
  'k_proj.weight': [8, K],
  'k_proj.bias': [8],
  'v_proj.weight': [8, K],
  'v_proj.bias': [8],
  'fused.weight': [32, K],
})
const only = (...names: string[]) => weights.filter((w) => names.some((n) => w.name.startsWith(`${n}.`)))
const whole = (name: string) => times(x, valuesOf(weights, `${name}.weight`), K, valuesOf(weights, `${name}.bias`))

/** Runs a layer on every rank; x is whole. */
function ranks<T>(size: number, run: (b: Bench, tp: Communicator) => T): T[] {
  return lockstep(size, (tp) => run(bench(tp), tp))
}

describe.each([1, 2, 4])('on %i ranks', (size) => {
  test('ReplicatedLinear is whole everywhere', () => {
    for (const out of ranks(size, (b) => {
      const m = Block.of({ a: new ReplicatedLinear(K, 8, { bias: true }) })
      materialize(m, b.env).fill(only('a'))
      return read(m.a.forward(b.floats(x, [TOKENS, K])))
    }))
      expect(worst(out, whole('a'))).toBeLessThan(CLOSE)
  })

  test('ColumnParallelLinear gives each rank its outputs', () => {
    const outs = ranks(size, (b) => {
      const m = Block.of({ a: new ColumnParallelLinear(K, 8, { bias: true }) })
      materialize(m, b.env).fill(only('a'))
      return read(m.a.forward(b.floats(x, [TOKENS, K])))
    })
    const n = 8 / size
    for (const [rank, out] of outs.entries()) expect(worst(out, columns(whole('a'), 8, rank * n, n))).toBeLessThan(CLOSE)
  })

  test('MergedColumnParallelLinear shares each part, and gathers them in order', () => {
    const run = (gatherOutput: boolean) =>
      ranks(size, (b) => {
        const m = Block.of({ merged: new MergedColumnParallelLinear(K, { a: 8, b: 4 }, { bias: true, gatherOutput }) })
        materialize(m, b.env).fill(only('a', 'b'))
        return read(m.merged.forward(b.floats(x, [TOKENS, K])))
      })
    const beside = (a: readonly number[], na: number, b: readonly number[], nb: number) =>
      Array.from({ length: TOKENS }, (_, t) => [...a.slice(t * na, t * na + na), ...b.slice(t * nb, t * nb + nb)]).flat()
    const na = 8 / size
    const nb = 4 / size
    run(false).forEach((out, rank) => {
      const mine = beside(columns(whole('a'), 8, rank * na, na), na, columns(whole('b'), 4, rank * nb, nb), nb)
      expect(worst(out, mine)).toBeLessThan(CLOSE)
    })
    for (const out of run(true)) expect(worst(out, beside(whole('a'), 8, whole('b'), 4))).toBeLessThan(CLOSE)
  })

  test('RowParallelLinear sums, adds its bias once, and cuts its input when asked to', () => {
    const n = K / size
    for (const inputIsParallel of [true, false]) {
      const outs = ranks(size, (b, tp) => {
        const m = Block.of({ a: new RowParallelLinear(K, 8, { bias: true, inputIsParallel }) })
        materialize(m, b.env).fill(only('a'))
        const input = b.floats(x, [TOKENS, K])
        return read(m.a.forward(inputIsParallel ? input.narrow(1, tp.rank * n, n) : input))
      })
      for (const out of outs) expect(worst(out, whole('a'))).toBeLessThan(CLOSE)
    }
  })

  test('RowParallelLinear without reduceResults leaves summands, the bias in one of them', () => {
    const outs = ranks(size, (b) => {
      const m = Block.of({ a: new RowParallelLinear(K, 8, { bias: true, inputIsParallel: false, reduceResults: false }) })
      materialize(m, b.env).fill(only('a'))
      return read(m.a.forward(b.floats(x, [TOKENS, K])))
    })
    const total = outs[0]!.map((_, i) => outs.reduce((sum, o) => sum + o[i]!, 0))
    expect(worst(total, whole('a'))).toBeLessThan(CLOSE)
  })

  test.each([
    ['apart', false],
    ['fused in the checkpoint', true],
  ])('QKVParallelLinear shares heads, key heads with their queries (%s)', (_, fused) => {
    const headDim = 4 // 4 heads, 2 key heads
    const outs = ranks(size, (b) => {
      const m = Block.of({ fused: new QKVParallelLinear(K, { heads: 4, kvHeads: 2, headDim }, { bias: !fused, fused }) })
      materialize(m, b.env).fill(fused ? only('fused') : only('q_proj', 'k_proj', 'v_proj'))
      const { q, k, v } = m.fused.heads(b.floats(x, [TOKENS, K]))
      expect([q.shape, k.shape]).toEqual([
        [TOKENS, 4 / size, headDim],
        [TOKENS, Math.max(1, 2 / size), headDim],
      ])
      return [q, k, v].map(read)
    })
    const all = times(x, valuesOf(weights, 'fused.weight'), K)
    const q = fused ? columns(all, 32, 0, 16) : whole('q_proj')
    const k = fused ? columns(all, 32, 16, 8) : whole('k_proj')
    const v = fused ? columns(all, 32, 24, 8) : whole('v_proj')
    outs.forEach((out, rank) => {
      const kv = [Math.floor((rank * 2) / size) * headDim, Math.max(1, 2 / size) * headDim] as const
      expect(worst(out[0]!, columns(q, 16, (rank * 16) / size, 16 / size))).toBeLessThan(CLOSE)
      expect(worst(out[1]!, columns(k, 8, ...kv))).toBeLessThan(CLOSE)
      expect(worst(out[2]!, columns(v, 8, ...kv))).toBeLessThan(CLOSE)
    })
  })
})

test('what cannot be shared says so by name', () => {
  const rank = { ...singleRank, size: 4 }
  const build = (layer: RowParallelLinear | QKVParallelLinear) => () => materialize(Block.of({ oProj: layer }), bench(rank).env)
  expect(build(new RowParallelLinear(10, 8))).toThrow(/^o_proj: 10 units of 1 features cannot be shared by 4 ranks\..*divides 10/)
  expect(build(new QKVParallelLinear(8, { heads: 12, kvHeads: 3, headDim: 2 }))).toThrow(/^o_proj: 3 units of 2 features/)
  expect(() => new ReplicatedLinear(8, 2.5)).toThrow(/2.5 features/)
})

describe('the method of a layer', () => {
  const method = (name: string, log: string[]): LinearMethod => ({
    name,
    materialize(plan, env, map) {
      log.push(`${name}: ${plan.parts.map((p) => `${p.path}@${p.row}`)} of ${plan.rows}`)
      return unquantizedMethod.materialize(plan, env, map)
    },
  })

  test('is the one given, else what the quantisation says for each checkpoint matrix', () => {
    const log: string[] = []
    const given = method('given', log)
    const [plain, packed] = [method('plain', log), method('packed', log)]
    const b = bench(undefined, 'f32', { quantization: { name: 'mixed', methodFor: (path) => (path === 'v_proj' ? plain : packed) } })
    const m = Block.of({
      a: new ReplicatedLinear(K, 8, { bias: true, linearMethod: given }),
      qkvProj: new QKVParallelLinear(K, { heads: 4, kvHeads: 2, headDim: 4 }, { bias: true }),
    })
    materialize(m, b.env).fill(only('a', 'q_proj', 'k_proj', 'v_proj'))
    expect(log).toEqual(['given: a@0 of 8', 'packed: q_proj@0,k_proj@16 of 24', 'plain: v_proj@0 of 8'])
    const { q, k, v } = m.qkvProj.heads(b.floats(x, [TOKENS, K]))
    expect(worst(read(q), whole('q_proj'))).toBeLessThan(CLOSE)
    expect(worst(read(k), whole('k_proj'))).toBeLessThan(CLOSE)
    expect(worst(read(v), whole('v_proj'))).toBeLessThan(CLOSE)
  })
})
