import { Arena, type FloatDType, PagedCache } from '@aphrodite/tensor'
import { afterAll, describe, expect, it } from 'vitest'
import { createCpuDevice, ISAS } from '../src/device.ts'
import { loadNative } from '../src/native.ts'
import { type Case, makeSequences, type Request, Runner, valueDimOf, worstError } from './attention-case.ts'
import { rounded } from './numbers.ts'

const isas = ISAS.slice(0, loadNative().bestIsa() + 1)

/**
 * In units of the output's root mean square. f32: scores of a few units are off by some 1e-6, and so are the weights. bf16 on
 * a processor that multiplies it: weights have 8 bits; with them in f32, bf16 and f16 are as exact as f32, as the test's numbers
 * are rounded beforehand and the result is f32.
 */
const limit = (c: Case, isa: string): number =>
  isa === 'avx512-bf16' && c.dtype === 'bf16' && (c.cacheDtype ?? c.dtype) === 'bf16' ? 1e-2 : 1e-5

const whole = (c: Case): Request[] => c.lengths.map((to, sequence) => ({ sequence, from: 0, to }))

const SHAPES: Pick<Case, 'heads' | 'kvHeads' | 'keyDim' | 'valueDim'>[] = [
  { heads: 8, kvHeads: 2, keyDim: 64 },
  { heads: 3, kvHeads: 3, keyDim: 80 },
  { heads: 7, kvHeads: 1, keyDim: 16, valueDim: 32 },
  { heads: 12, kvHeads: 1, keyDim: 8, valueDim: 8 },
  { heads: 4, kvHeads: 2, keyDim: 96, valueDim: 62 },
  { heads: 2, kvHeads: 1, keyDim: 128, valueDim: 130 },
  { heads: 1, kvHeads: 1, keyDim: 256 },
  { heads: 2, kvHeads: 1, keyDim: 5, valueDim: 3 },
]
const OPTIONS: [string, NonNullable<Case['options']>][] = [
  ['nothing else', {}],
  ['a scale', { scale: 0.7 }],
  ['a scale below zero', { scale: -0.2 }],
  ['a window of 1', { window: 1 }],
  ['a window of 33', { window: 33 }],
  ['a window of 300', { window: 300 }],
  ['a soft cap', { softCap: 2 }],
  ['ALiBi', { alibiSlopes: Float32Array.of(0.5, 0.25, 0.0625, 1) }],
  ['sinks', { sinks: Float32Array.of(1, -3, 8, 0) }],
  [
    'all of it',
    { scale: 0.4, window: 290, softCap: 5, alibiSlopes: Float32Array.of(0.03, 0.01, 0.2, 0.004), sinks: Float32Array.of(1, 0, -2, 3) },
  ],
]

describe.each(isas)('paged attention on %s', (isa) => {
  const devices = [2, 1, 3].map((threads) => createCpuDevice({ isa, threads }))
  const device = devices[0]!
  afterAll(() => {
    for (const d of devices) d.close()
  })

  it.each(SHAPES.flatMap((shape) => (['f32', 'bf16', 'f16'] as FloatDType[]).map((dtype) => ({ ...shape, dtype }))))(
    '$heads heads over $kvHeads of $keyDim, $dtype: near float64',
    (shape) => {
      const c: Case = { ...shape, lengths: [1, 17, 300] }
      const sequences = makeSequences(c)
      const runner = new Runner(device, c, sequences)
      expect(worstError(c, sequences, whole(c), runner.step(whole(c)), 23)).toBeLessThan(limit(c, isa))
      runner.release()
    },
  )

  it.each(OPTIONS)('%s: near float64', (_name, options) => {
    for (const dtype of ['f32', 'bf16'] as const) {
      const c: Case = { heads: 4, kvHeads: 2, keyDim: 32, dtype, lengths: [5, 600, 64], options }
      const sequences = makeSequences(c)
      const runner = new Runner(device, c, sequences)
      expect(worstError(c, sequences, whole(c), runner.step(whole(c)), 37)).toBeLessThan(limit(c, isa))
      runner.release()
    }
  })

  it('queries and cache of different types, and rounded results', () => {
    for (const [dtype, cacheDtype] of [
      ['f32', 'bf16'],
      ['f32', 'f16'],
      ['bf16', 'f32'],
      ['bf16', 'f16'],
      ['f16', 'bf16'],
    ] as const) {
      const c: Case = { heads: 4, kvHeads: 2, keyDim: 32, dtype, cacheDtype, lengths: [40] }
      const sequences = makeSequences(c)
      const runner = new Runner(device, c, sequences)
      const got = runner.step(whole(c))
      expect(worstError(c, sequences, whole(c), got)).toBeLessThan(limit(c, isa))
      expect(runner.step(whole(c), 'bf16')).toEqual(rounded(got, 'bf16'))
      expect(runner.step(whole(c), 'f16')).toEqual(rounded(got, 'f16'))
      runner.release()
    }
  })

  const INVARIANT: Case[] = [
    { heads: 8, kvHeads: 2, keyDim: 64, dtype: 'bf16', lengths: [1, 7, 16, 255, 256, 257, 777] },
    { heads: 6, kvHeads: 2, keyDim: 24, valueDim: 72, dtype: 'f32', lengths: [3, 300, 530] },
    { heads: 4, kvHeads: 4, keyDim: 16, dtype: 'f16', lengths: [9, 600], options: { window: 100, softCap: 3 } },
    { heads: 9, kvHeads: 1, keyDim: 32, dtype: 'bf16', lengths: [35, 700], options: { window: 257, sinks: new Float32Array(9).fill(0.5) } },
    { heads: 4, kvHeads: 2, keyDim: 32, dtype: 'bf16', lengths: [35, 700], options: { alibiSlopes: Float32Array.of(0.1, 0.5, 0.01, 0.2) } },
  ]
  it.each(INVARIANT.map((c, i) => [i, c] as const))(
    'case %i: the same bits alone, in a crowd, in chunks, in other pages, on other threads',
    (_i, c) => {
      const sequences = makeSequences(c)
      const width = c.heads * valueDimOf(c)
      const first = new Runner(device, c, sequences)
      const together = first.step(whole(c)) // every sequence as one prefill, all in one batch
      first.release()
      const offsets = c.lengths.map((_, s) => c.lengths.slice(0, s).reduce((a, b) => a + b, 0) * width)
      const same = (got: Float32Array, request: Request, at: number, how: string): void => {
        const n = (request.to - request.from) * width
        const start = offsets[request.sequence]! + request.from * width
        expect(equalBits(got.subarray(at, at + n), together.subarray(start, start + n)), `${how}, ${JSON.stringify(request)}`).toBe(true)
      }
      for (const other of devices) {
        const runner = new Runner(other, c, sequences, 5)
        const got = runner.step(whole(c))
        expect(equalBits(got, together), `${other.threads} threads`).toBe(true)
        runner.release()
      }
      // Chunks of 7, of all sequences in one batch as long as they last: prefills of many sizes beside decodes.
      const chunked = new Runner(devices[2]!, c, sequences, 3)
      for (let from = 0; from < Math.max(...c.lengths); from += 7) {
        const requests = c.lengths.flatMap((n, sequence) => (from < n ? [{ sequence, from, to: Math.min(n, from + 7) }] : []))
        const got = chunked.step(requests)
        let at = 0
        for (const r of requests) {
          same(got, r, at, 'chunks of 7')
          at += (r.to - r.from) * width
        }
      }
      chunked.release()
      // The last tokens one by one, alone.
      const alone = new Runner(devices[1]!, c, sequences, 7)
      c.lengths.forEach((n, sequence) => {
        const from = Math.max(0, n - 20)
        if (from > 0) alone.step([{ sequence, from: 0, to: from }])
        for (let t = from; t < n; t++) {
          const r = { sequence, from: t, to: t + 1 }
          same(alone.step([r]), r, 0, 'alone')
        }
      })
      alone.release()
    },
  )

  it('shares a long context between threads without changing a bit', () => {
    const c: Case = { heads: 2, kvHeads: 1, keyDim: 16, dtype: 'bf16', lengths: [5000, 40] }
    const sequences = makeSequences(c)
    const results = devices.map((d) => {
      const runner = new Runner(d, c, sequences)
      runner.step([{ sequence: 0, from: 0, to: 4999 }])
      runner.step([{ sequence: 1, from: 0, to: 39 }])
      const last = { sequence: 0, from: 4999, to: 5000 }
      const alone = runner.step([last])
      const crowd = runner.step([{ sequence: 1, from: 39, to: 40 }, last])
      expect(equalBits(crowd.subarray(alone.length), alone)).toBe(true)
      expect(worstError(c, sequences, [last], alone)).toBeLessThan(limit(c, isa))
      runner.release()
      return alone
    })
    for (const r of results) expect(equalBits(r, results[0]!)).toBe(true)
  })

  it('is not touched by what a former sequence left in a page, or by scores that are too large', () => {
    const shape = { heads: 2, kvHeads: 1, keyDim: 16, dtype: 'f32' } as const
    const sick: Case = { ...shape, lengths: [16] }
    const c: Case = { ...shape, lengths: [5] }
    const sequences = makeSequences(c)
    const runner = new Runner(device, c, sequences)
    const clean = runner.step(whole(c))
    const bad = makeSequences(sick).map(({ q, k, v }) => ({ q, k: k.map(() => Number.NaN), v: v.map(() => Number.POSITIVE_INFINITY) }))
    const sickRunner = new Runner(device, sick, bad)
    Object.assign(sickRunner, { cache: runner.cache }) // the same pages
    expect(sickRunner.step(whole(sick))[0]).toBeNaN()
    expect(equalBits(runner.step(whole(c)), clean)).toBe(true)
    const large = sequences.map(({ q, k, v }) => ({ q: q.map((x) => x * 1e4), k: k.map((x) => x * 1e4), v }))
    const largeRunner = new Runner(device, c, large)
    expect(worstError(c, large, whole(c), largeRunner.step(whole(c)))).toBeLessThan(1e-5)
    for (const r of [runner, sickRunner, largeRunner]) r.release()
  })
})

describe('bad arguments', () => {
  const device = createCpuDevice({ threads: 1 })
  const arena = new Arena(device, 1 << 20)
  afterAll(() => device.close())
  const shape = { kvHeads: 2, keyDim: 16, valueDim: 16, dtype: 'f32' } as const
  const cache = new PagedCache(arena.reserve(device.pageBytes(shape) * 4), shape, 4)
  const ints = (...x: number[]) => {
    const t = arena.empty([x.length], 'i32')
    device.upload(t, Int32Array.from(x))
    return t
  }
  const batch = {
    slots: ints(16, 17),
    queryStarts: ints(0, 2),
    contextLengths: ints(2),
    pageTables: ints(1, 0).view(1, 2),
    maxQueryLength: 2,
    maxContextLength: 2,
  }
  const q = arena.empty([2, 4, 16], 'f32')
  const k = arena.empty([2, 2, 16], 'f32')
  const out = arena.empty([2, 64], 'f32')
  const attend =
    (changes: Partial<typeof batch>, options = {}, c = cache, o = out, x = q) =>
    () =>
      device.kernels.pagedAttention(o, x, c, { ...batch, ...changes }, { scale: 0.25, ...options })

  it('pagedAttention names what is wrong', () => {
    expect(attend({})).not.toThrow()
    expect(attend({ contextLengths: ints(1) })).toThrow(/contextLengths of sequence 0 is 1, fewer than its 2 queries/)
    expect(attend({ contextLengths: ints(33) })).toThrow(/contextLengths of sequence 0 is 33, but pageTables has only 2 columns/)
    expect(attend({ pageTables: ints(4, 0).view(1, 2) })).toThrow(
      /pageTables of sequence 0 has page 4, which is outside the cache of 4 pages/,
    )
    expect(attend({ pageTables: ints(-1, 0).view(1, 2) })).toThrow(/page -1/)
    expect(attend({ pageTables: ints(-1, 2).view(1, 2), contextLengths: ints(20) }, { window: 2 })).not.toThrow() // not looked at
    expect(attend({ queryStarts: ints(0, 3) })).toThrow(/queryStarts/)
    expect(attend({ queryStarts: ints(2, 0) })).toThrow(/queryStarts of sequence 0 fall/)
    expect(attend({ queryStarts: ints(0) })).toThrow(/queryStarts should have one entry more/)
    expect(attend({ queryStarts: arena.empty([2], 'f32') })).toThrow(/queryStarts has the wrong dtype/)
    expect(attend({}, { scale: Number.NaN })).toThrow(/scale should be finite/)
    expect(attend({}, { softCap: -1 })).toThrow(/softCap/)
    expect(attend({}, { window: -1 })).toThrow(/window/)
    expect(attend({}, { sinks: arena.empty([3], 'f32') })).toThrow(/sinks should be f32, one for each head/)
    expect(attend({}, {}, new PagedCache(cache.address, shape, 1 << 26))).toThrow(/cache lies outside the memory/)
    expect(attend({}, {}, new PagedCache(0, shape, 4))).toThrow(/cache is a null/)
    expect(attend({}, {}, new PagedCache(cache.address + 4, shape, 4))).toThrow(/cache is not aligned/)
    expect(attend({}, {}, new PagedCache(cache.address, { ...shape, keyDim: 32 }, 2))).toThrow(/key dimensions/)
    expect(attend({}, {}, new PagedCache(cache.address, { ...shape, kvHeads: 3 }, 2))).toThrow(/multiple of the cache's kv heads/)
    expect(attend({}, {}, cache, arena.empty([2, 63], 'f32'))).toThrow(/out should have/)
    expect(attend({}, {}, cache, out, arena.empty([4, 2, 16], 'f32').narrow(1, 0, 1))).toThrow()
    expect(attend({}, {}, cache, out, arena.empty([2, 64], 'f32'))).toThrow(/should be \[tokens, heads, dim\]/)
  })

  it('writeCache names what is wrong', () => {
    const write =
      (slots: number[], c = cache, key = k) =>
      () =>
        device.kernels.writeCache(c, key, k, ints(...slots))
    expect(write([16, 17])).not.toThrow()
    expect(write([16, 64])).toThrow(/slots has 64, which is outside the cache of 4 pages/)
    expect(write([-1, 17])).toThrow(/slots has -1/)
    expect(write([16])).toThrow(/as many tokens/)
    expect(write([16, 17], cache, arena.empty([2, 2, 8], 'f32'))).toThrow(/k should have/)
    expect(write([16, 17], new PagedCache(cache.address, shape, 1 << 26))).toThrow(/outside the memory/)
  })
})

const equalBits = (a: Float32Array, b: Float32Array): boolean =>
  Buffer.compare(new Uint8Array(a.buffer, a.byteOffset, a.byteLength), new Uint8Array(b.buffer, b.byteOffset, b.byteLength)) === 0
