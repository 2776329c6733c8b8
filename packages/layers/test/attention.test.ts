import { type Kernels, PagedCache } from '@aphrodite/tensor'
import { lockstep, Random } from '@aphrodite/testing'
import { describe, expect, test } from 'vitest'
import { Attention, type AttentionSpec } from '../src/attention.ts'
import type { PagedMetadata } from '../src/cache.ts'
import { cachingLayers } from '../src/module.ts'
import type { Step } from '../src/step.ts'
import { type Bench, Block, bench, checkpoint, materialize, read, valuesOf, worst } from './harness.ts'

const [HEADS, KV, DIM, TOKENS] = [4, 2, 8, 21] // more than a page of 16
const q = new Random(1).normals(TOKENS * HEADS * DIM)
const k = new Random(2).normals(TOKENS * KV * DIM)
const v = new Random(3).normals(TOKENS * KV * DIM)
const sinks = checkpoint({ 'self_attn.sinks': [HEADS] })

/** Causal attention written out, head by head. */
function expected(spec: Partial<AttentionSpec>, slopes?: readonly number[]): number[] {
  const scale = spec.scale ?? DIM ** -0.5
  const sink = spec.sinks ? valuesOf(sinks, 'self_attn.sinks') : undefined
  const out = new Array<number>(TOKENS * HEADS * DIM).fill(0)
  for (let h = 0; h < HEADS; h++)
    for (let t = 0; t < TOKENS; t++) {
      const kv = Math.floor((h * KV) / HEADS)
      const scores: [number, number][] = []
      for (let s = Math.max(0, spec.window ? t - spec.window + 1 : 0); s <= t; s++) {
        let score = 0
        for (let d = 0; d < DIM; d++) score += q[(t * HEADS + h) * DIM + d]! * k[(s * KV + kv) * DIM + d]!
        score *= scale
        if (spec.softCap) score = spec.softCap * Math.tanh(score / spec.softCap)
        if (slopes) score += slopes[h]! * (s - t)
        scores.push([s, score])
      }
      const sum = scores.reduce((total, [, x]) => total + Math.exp(x), sink ? Math.exp(sink[h]!) : 0)
      for (const [s, x] of scores)
        for (let d = 0; d < DIM; d++) out[(t * HEADS + h) * DIM + d]! += (Math.exp(x) / sum) * v[(s * KV + kv) * DIM + d]!
    }
  return out
}

function stepOf(b: Bench, layers: ReturnType<typeof cachingLayers>): Step {
  const pages = 3
  const metadata: PagedMetadata = {
    kind: 'paged',
    slots: b.ints(Array.from({ length: TOKENS }, (_, t) => (t < 16 ? 32 + t : t))), // page 2, then page 1
    queryStarts: b.ints([0, TOKENS]),
    contextLengths: b.ints([TOKENS]),
    pageTables: b.ints([2, 1], [1, 2]),
    maxQueryLength: TOKENS,
    maxContextLength: TOKENS,
  }
  const kvCaches = layers.map((layer) => {
    const { kvHeads, keyDim, valueDim } = layer.cacheSpec() as { kvHeads: number; keyDim: number; valueDim: number }
    const shape = { kvHeads, keyDim, valueDim, dtype: 'f32' as const }
    return { kind: 'paged' as const, group: 0, pages: new PagedCache(b.env.arena.reserve(pages * b.device.pageBytes(shape)), shape, pages) }
  })
  return { kvCaches, attnMetadata: [metadata] } as Partial<Step> as Step
}

/** The heads [first, first + n) of each token. */
const part = (values: Float32Array, heads: number, first: number, n: number) =>
  Float32Array.from(
    Array.from({ length: TOKENS }, (_, t) => [...values.subarray((t * heads + first) * DIM, (t * heads + first + n) * DIM)]).flat(),
  )

describe.each([1, 2, 4])('on %i ranks', (size) => {
  test.each<[string, Partial<AttentionSpec>, readonly number[] | undefined]>([
    ['plain', {}, undefined],
    ['a window', { window: 5 }, undefined],
    ['a scale and a cap', { scale: 0.7, softCap: 1.5 }, undefined],
    ['ALiBi', { alibi: true }, [2 ** -2, 2 ** -4, 2 ** -6, 2 ** -8]],
    ['sinks', { sinks: 'sinks' }, undefined],
  ])('%s', (_, more, slopes) => {
    const outs = lockstep(size, (tp) => {
      const b = bench(tp)
      const attn = new Attention({ heads: HEADS, kvHeads: KV, headDim: DIM, ...more })
      const m = Block.of({ selfAttn: Block.of({ attn }) })
      materialize(m, b.env).fill(more.sinks ? sinks : [])
      const heads = HEADS / size
      const kv = Math.max(1, KV / size)
      expect(attn.cacheSpec()).toEqual({ kind: 'paged', kvHeads: kv, keyDim: DIM, valueDim: DIM, window: more.window ?? 0 })
      const first = Math.floor((tp.rank * KV) / size)
      return read(
        attn.forward(
          b.floats(part(q, HEADS, tp.rank * heads, heads), [TOKENS, heads, DIM]),
          b.floats(part(k, KV, first, kv), [TOKENS, kv, DIM]),
          b.floats(part(v, KV, first, kv), [TOKENS, kv, DIM]),
          stepOf(b, cachingLayers(m)),
        ),
      )
    })
    const heads = HEADS / size
    const all = Float32Array.from(expected(more, slopes))
    for (const [rank, out] of outs.entries()) expect(worst(out, [...part(all, HEADS, rank * heads, heads)])).toBeLessThan(1e-6)
  })
})

test('slopes of a head count between powers of two', () => {
  const b = bench()
  const slopes: number[][] = []
  const kernels: Kernels = { ...b.device.kernels, pagedAttention: (_out, _q, _cache, _batch, o) => void slopes.push(read(o.alibiSlopes!)) }
  const attn = new Attention({ heads: 6, kvHeads: 6, headDim: DIM, alibi: true })
  const m = Block.of({ attn })
  materialize(m, b.env)
  const x = b.floats(new Float32Array(TOKENS * 6 * DIM), [TOKENS, 6, DIM])
  Object.defineProperty(x, 'kernels', { value: kernels })
  attn.forward(x, x, x, stepOf(b, cachingLayers(m)))
  // The four of four heads, then the odd ones of eight.
  expect(slopes).toEqual([[2 ** -2, 2 ** -4, 2 ** -6, 2 ** -8, 2 ** -1, 2 ** -3]])
})

test('a step without its cache is an error, and heads have to divide', () => {
  const b = bench()
  const attn = new Attention({ heads: 2, kvHeads: 2, headDim: DIM })
  materialize(Block.of({ attn }), b.env)
  const x = b.floats(new Float32Array(2 * DIM), [1, 2, DIM])
  expect(() => attn.forward(x, x, x, { kvCaches: [], attnMetadata: [] } as Partial<Step> as Step)).toThrow(
    /^attn: the step has no paged cache for attention layer -1/,
  )
  expect(() => new Attention({ heads: 6, kvHeads: 4, headDim: 8 })).toThrow(/6 heads cannot share 4 key heads/)
})
