import { type Communicator, singleRank } from '@aphrodite/tensor'
import { lockstep, Random } from '@aphrodite/testing'
import { describe, expect, test } from 'vitest'
import {
  ColumnParallelLinear,
  MergedColumnParallelLinear,
  ReplicatedLinear,
  RowParallelLinear,
  type RowParallelOptions,
} from '../src/linear.ts'
import type { Layer } from '../src/module.ts'
import { QKVParallelLinear } from '../src/qkv.ts'
import type { LinearMethod } from '../src/quantization/method.ts'
import { unquantizedMethod } from '../src/quantization/unquantized.ts'
import { headShare, shareOf } from '../src/sharding.ts'
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

/** Rank by rank: where its heads, or features, start and end. */
const spans = (size: number, of: (ranks: { rank: number; size: number }) => { start: number; length: number }) =>
  Array.from({ length: size }, (_, rank) => of({ rank, size })).map(({ start, length }) => [start, start + length])

describe('shares that do not divide', () => {
  test('are whole groups of a key head, or parts of one', () => {
    const of = (heads: number, kvHeads: number, size: number) =>
      (['heads', 'kvHeads'] as const).map((kind) => spans(size, (ranks) => headShare('', { heads, kvHeads }, ranks)[kind]))
    // biome-ignore format: one rank a column
    expect(of(6, 3, 2)).toEqual([[[0, 4], [4, 6]], [[0, 2], [2, 3]]])
    // biome-ignore format: one rank a column
    expect(of(8, 1, 3)).toEqual([[[0, 3], [3, 6], [6, 8]], [[0, 1], [0, 1], [0, 1]]])
    // biome-ignore format: one rank a column
    expect(of(8, 2, 3)).toEqual([[[0, 2], [2, 4], [4, 8]], [[0, 1], [0, 1], [1, 2]]])
    // biome-ignore format: one rank a column
    expect(of(4, 2, 4)).toEqual([[[0, 1], [1, 2], [2, 3], [3, 4]], [[0, 1], [0, 1], [1, 2], [1, 2]]])
  })

  test('of heads cover each once, each beside its own key head, for every size up to the heads', () => {
    for (const [heads, kvHeads] of [
      [12, 3],
      [7, 7],
      [14, 2],
      [15, 5],
      [9, 1],
    ] as const)
      for (let size = 1; size <= heads; size++) {
        let next = 0
        for (let rank = 0; rank < size; rank++) {
          const share = headShare('', { heads, kvHeads }, { rank, size })
          expect(share.heads.start).toBe(next)
          next += share.heads.length
          expect(share.heads.length % share.kvHeads.length).toBe(0)
          const each = share.heads.length / share.kvHeads.length
          for (let i = 0; i < share.heads.length; i++)
            expect(Math.floor((share.heads.start + i) / (heads / kvHeads))).toBe(share.kvHeads.start + Math.floor(i / each))
        }
        expect(next).toBe(heads)
      }
  })

  test('of features are aligned where that keeps them near each other, and whole units where these are given', () => {
    expect(spans(3, (ranks) => shareOf('', 11008, undefined, ranks))).toEqual([
      [0, 3712],
      [3712, 7360],
      [7360, 11008],
    ]) // units of 64
    expect(spans(3, (ranks) => shareOf('', 128, undefined, ranks))).toEqual([
      [0, 44],
      [44, 88],
      [88, 128],
    ]) // of 4
    expect(spans(2, (ranks) => shareOf('', 35, undefined, ranks))).toEqual([
      [0, 18],
      [18, 35],
    ])
    expect(spans(2, (ranks) => shareOf('', 100, undefined, ranks))).toEqual([
      [0, 50],
      [50, 100],
    ])
    expect(spans(2, (ranks) => shareOf('', 96, 32, ranks))).toEqual([
      [0, 64],
      [64, 96],
    ])
  })

  test.each([2, 3, 4])('are multiplied, gathered and summed on %i ranks', (size) => {
    const odd = checkpoint({ 'up.weight': [10, K], 'gate.weight': [7, K], 'down.weight': [5, 10], 'down.bias': [5] }, 3)
    const up = times(x, valuesOf(odd, 'up.weight'), K)
    const gate = times(x, valuesOf(odd, 'gate.weight'), K)
    const down = times(Float32Array.from(up), valuesOf(odd, 'down.weight'), 10, valuesOf(odd, 'down.bias'))
    const outs = ranks(size, (b) => {
      const m = Block.of({
        up: new ColumnParallelLinear(K, 10),
        down: new RowParallelLinear(10, 5, { bias: true }),
        both: new MergedColumnParallelLinear(K, { up: 10, gate: 7 }, { gatherOutput: true }),
      })
      materialize(m, b.env).fill(odd)
      const input = b.floats(x, [TOKENS, K])
      return [read(m.down.forward(m.up.forward(input))), read(m.both.forward(input))]
    })
    for (const [summed, gathered] of outs) {
      expect(worst(summed!, down)).toBeLessThan(CLOSE)
      expect(worst(columns(gathered!, 17, 0, 10), up)).toBeLessThan(CLOSE)
      expect(worst(columns(gathered!, 17, 10, 7), gate)).toBeLessThan(CLOSE)
    }
  })
})

test('what cannot be shared says so by name, and which sizes would do', () => {
  const rank = { ...singleRank, size: 4 }
  const build = (layer: Layer) => () => materialize(Block.of({ oProj: layer }), bench(rank).env)
  expect(build(new RowParallelLinear(3, 8))).toThrow(
    /^o_proj: 3 features cannot be shared by 4 ranks\. Take a tensor parallel size of at most 3/,
  )
  expect(build(new ColumnParallelLinear(8, 96, { unit: 32 }))).toThrow(/^o_proj: 96 features in units of 32 cannot/)
  expect(build(new QKVParallelLinear(8, { heads: 3, kvHeads: 3, headDim: 2 }))).toThrow(
    /^o_proj: 3 heads cannot be shared by 4 ranks.*at most 3/,
  )
  expect(() => new ReplicatedLinear(8, 2.5)).toThrow(/2.5 features/)
  expect(() => new ColumnParallelLinear(8, 10, { unit: 4 })).toThrow(/10 features.*units of 4/)
  expect(() => new RowParallelLinear(10, 8, { heads: { heads: 4, kvHeads: 2 } })).toThrow(/10 features are not a multiple of 4 heads/)
  expect(() => new QKVParallelLinear(8, { heads: 4, kvHeads: 3, headDim: 2 })).toThrow(/4 heads cannot share 3 key heads/)
})

test('a row-parallel layer that is shared otherwise than its input says so, and how to mend it', () => {
  const shape = { heads: 6, kvHeads: 3, headDim: 2 }
  const run = (options: RowParallelOptions) =>
    ranks(2, (b) => {
      const m = Block.of({ qkvProj: new QKVParallelLinear(K, shape), oProj: new RowParallelLinear(12, 5, options) })
      materialize(m, b.env)
      const { q } = m.qkvProj.heads(b.floats(x, [TOKENS, K]))
      return m.oProj.forward(q.empty([TOKENS, q.dim(1) * q.dim(2)])).shape
    })
  expect(() => run({})).toThrow(/^o_proj: rank 0 of 2 holds 6 of 12 inputs, and was given \[3,8\].*`heads`/)
  expect(run({ heads: shape })).toEqual([
    [TOKENS, 5],
    [TOKENS, 5],
  ])
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
