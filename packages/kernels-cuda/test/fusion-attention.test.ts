import { type AttentionBatch, PagedCache, Tensor } from '@aphrodite/tensor'
import { beforeEach, describe, expect, test } from 'vitest'
import { Bench } from './bench.ts'
import { everythingFits } from './emulated.ts'

const HEADS = 4
const KV_HEADS = 2
const DIM = 8

let b: Bench
let qkv: Tensor
let out: Tensor
let [q, k, v]: Tensor[] = []
let batch: AttentionBatch
let cache: PagedCache
let norms: Tensor[]
let cosSin: Tensor
let positions: Tensor
beforeEach(() => {
  b = new Bench()
  qkv = b.temporary(2, (HEADS + 2 * KV_HEADS) * DIM)
  out = b.temporary(2, HEADS * DIM)
  q = qkv.narrow(1, 0, HEADS * DIM).view(-1, HEADS, DIM)
  k = qkv.narrow(1, HEADS * DIM, KV_HEADS * DIM).view(-1, KV_HEADS, DIM)
  v = qkv.narrow(1, (HEADS + KV_HEADS) * DIM, KV_HEADS * DIM).view(-1, KV_HEADS, DIM)
  cosSin = b.arena.empty([64, DIM], 'f32')
  norms = [b.vector(DIM), b.vector(DIM)]
  const ints = (...shape: number[]) => b.arena.empty(shape, 'i32')
  positions = ints(2)
  const shape = { kvHeads: KV_HEADS, keyDim: DIM, valueDim: DIM, dtype: 'f32' as const }
  cache = new PagedCache(b.arena.reserve(5 * b.device.pageBytes(shape)), shape, 5)
  batch = {
    slots: ints(2),
    queryStarts: ints(3),
    contextLengths: ints(2),
    pageTables: ints(2, 2),
    maxQueryLength: 1,
    maxContextLength: 32,
  }
})

const parts = {
  qNorm: () => b.kernels.rmsNorm(q!, q!, norms[0]!, 1e-6, 0),
  kNorm: () => b.kernels.rmsNorm(k!, k!, norms[1]!, 1e-6, 0),
  rotary: () => b.kernels.rotary(q!, k!, positions, cosSin, {}),
  write: () => b.kernels.writeCache(cache, k!, v!, batch.slots),
  attend: () => b.kernels.pagedAttention(out, q!, cache, batch, { scale: 1 }),
}
const { qNorm, kNorm, rotary, write, attend } = parts
const steps =
  (...calls: (() => void)[]) =>
  () => {
    for (const call of calls) call()
  }

describe('one query a sequence', () => {
  test('is one op, with norms or without', () => {
    expect(b.fuse(steps(qNorm, kNorm, rotary, write, attend), { keep: [out] })).toEqual(['fusedAttention'])
    expect(b.fuse(steps(kNorm, qNorm, rotary, write, attend), { keep: [out] })).toEqual(['fusedAttention'])
    expect(b.fuse(steps(rotary, write, attend), { keep: [out] })).toEqual(['fusedAttention'])
  })
  test('a single norm, or two that differ, stay ops', () => {
    const other = () => b.kernels.rmsNorm(k!, k!, norms[1]!, 1e-3, 0)
    expect(b.fuse(steps(qNorm, rotary, write, attend), { keep: [out] })).toEqual(['rmsNorm', 'fusedAttention'])
    expect(b.fuse(steps(qNorm, other, rotary, write, attend), { keep: [out] })).toEqual(['rmsNorm', 'rmsNorm', 'fusedAttention'])
  })
  test('a norm over all heads stays an op', () => {
    const whole = b.vector(HEADS * DIM)
    const flat = qkv.narrow(1, 0, HEADS * DIM)
    const overAll = () => b.kernels.rmsNorm(flat, flat, whole, 1e-6, 0)
    expect(b.fuse(steps(overAll, kNorm, rotary, write, attend), { keep: [out] })).toEqual(['rmsNorm', 'rmsNorm', 'fusedAttention'])
  })
  test('not where the projection is live at the end, or its turned part is read', () => {
    const ops = ['rotary', 'writeCache', 'pagedAttention']
    const fits = { ...everythingFits, rotaryWrite: () => false }
    expect(b.fuse(steps(rotary, write, attend), { keep: [out, qkv], fits })).toEqual(ops)
    const copy = b.temporary(2, KV_HEADS, DIM)
    const read = (t: Tensor) => () => b.kernels.copy(copy, t)
    expect(b.fuse(steps(rotary, write, attend, read(k!)), { keep: [out, copy], fits })).toEqual([...ops, 'copy'])
    expect(b.fuse(steps(rotary, read(k!), write, attend), { keep: [out, copy], fits })).toEqual([
      'rotary',
      'copy',
      'writeCache',
      'pagedAttention',
    ])
    // Values are not turned: who reads them sees what was there.
    expect(b.fuse(steps(rotary, write, attend, read(v!)), { keep: [out, copy], fits })).toEqual(['fusedAttention', 'copy'])
  })
  test('not where queries, keys, values or the cache change in between', () => {
    const fits = { ...everythingFits, rotaryWrite: () => false }
    const double = (t: Tensor) => () => b.kernels.scale(t, t, 2)
    for (const t of [q!, k!])
      expect(b.fuse(steps(rotary, double(t), write, attend), { keep: [out], fits })).toEqual([
        'rotary',
        'scale',
        'writeCache',
        'pagedAttention',
      ])
    for (const t of [q!, v!])
      expect(b.fuse(steps(rotary, write, double(t), attend), { keep: [out], fits })).toEqual([
        'rotary',
        'writeCache',
        'scale',
        'pagedAttention',
      ])
    const page = new Tensor(cache.address, 'f32', [8], [1], b.arena, norms[0]!.block)
    expect(b.fuse(steps(rotary, write, double(page), attend), { keep: [out], fits })).toEqual([
      'rotary',
      'writeCache',
      'scale',
      'pagedAttention',
    ])
    const clear = () => b.kernels.fill(page, 0)
    expect(b.fuse(steps(rotary, write, clear, attend), { keep: [out], fits })).toEqual(['rotary', 'writeCache', 'fill', 'pagedAttention'])
    expect(b.fuse(steps(rotary, write, double(positions), attend), { keep: [out], fits })).toContain('rotary')
  })
  test('not where the tokens written are not those of the batch', () => {
    const others = b.arena.empty([2], 'i32')
    const elsewhere = () => b.kernels.writeCache(cache, k!, v!, others)
    const fits = { ...everythingFits, rotaryWrite: () => false }
    expect(b.fuse(steps(rotary, elsewhere, attend), { keep: [out], fits })).toEqual(['rotary', 'writeCache', 'pagedAttention'])
  })
})

describe('several queries a sequence, or no kernel for all of it', () => {
  test('keys and queries are turned as they are written', () => {
    const fits = { ...everythingFits, attention: () => false }
    expect(b.fuse(steps(qNorm, kNorm, rotary, write, attend), { keep: [out], fits })).toEqual(['fusedRotaryWrite', 'pagedAttention'])
    batch = { ...batch, maxQueryLength: 2 }
    expect(b.fuse(steps(qNorm, kNorm, rotary, write, attend), { keep: [out] })).toEqual(['fusedRotaryWrite', 'pagedAttention'])
    expect(b.fuse(steps(rotary, write, attend), { keep: [out] })).toEqual(['fusedRotaryWrite', 'pagedAttention'])
  })
  test('not where the turned keys are read again', () => {
    batch = { ...batch, maxQueryLength: 2 }
    const copy = b.temporary(2, KV_HEADS, DIM)
    const read = () => b.kernels.copy(copy, k!)
    expect(b.fuse(steps(rotary, write, attend, read), { keep: [out, copy] })).toEqual(['rotary', 'writeCache', 'pagedAttention', 'copy'])
  })
  test('queries that were normalised elsewhere keep their norms', () => {
    batch = { ...batch, maxQueryLength: 2 }
    const other = b.temporary(2, HEADS, DIM)
    const away = () => b.kernels.rmsNorm(other, q!, norms[0]!, 1e-6, 0)
    const turn = () => b.kernels.rotary(other, k!, positions, cosSin, {})
    const look = () => b.kernels.pagedAttention(out, other, cache, batch, { scale: 1 })
    expect(b.fuse(steps(away, kNorm, turn, write, look), { keep: [out] })).toEqual([
      'rmsNorm',
      'rmsNorm',
      'fusedRotaryWrite',
      'pagedAttention',
    ])
  })
})
