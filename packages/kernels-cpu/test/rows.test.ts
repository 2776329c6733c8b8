import { Arena, type Device, type FloatDType, type Tensor } from '@aphrodite/tensor'
import { createReferenceDevice, type Downloaded, type Filter, keptTokens, OP_CASES, outputsOf, Random } from '@aphrodite/testing'
import { afterAll, describe, expect, it } from 'vitest'
import { createCpuDevice, ISAS, type Isa } from '../src/index.ts'

const devices: Device[] = []
afterAll(() => {
  for (const d of devices) d.close()
})
function open(threads: number, isa: Isa | 'auto' = 'auto'): Device | undefined {
  try {
    const device = createCpuDevice({ threads, isa, pin: false })
    devices.push(device)
    return device
  } catch (error) {
    if ((error as { code?: string }).code === 'BAD_OPTION') return undefined
    throw error
  }
}

const device = open(2)!
const alone = open(1)!

const sameBits = (a: Downloaded, b: Downloaded): boolean =>
  Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength))

describe('the same bits', () => {
  const ops = ['rmsNorm', 'addRmsNorm', 'layerNorm', 'scale', 'softCap', 'activate', 'activateAndMul', 'copy', 'sample', 'logProbs']
  const cases = OP_CASES.filter((c, i) => ops.includes(c.op) && i % 3 === 0)
  const ours = new Map(cases.map((c) => [c, outputsOf(c, alone)]))

  it.each(ISAS.slice(0, -1))('on every instruction set: %s', (isa) => {
    const other = open(1, isa)
    if (!other) return
    const differing = cases.filter((c) => !outputsOf(c, other).every((output, i) => sameBits(output, ours.get(c)![i]!)))
    expect(differing.map((c) => c.name)).toEqual([])
  })

  /** Rows of ops that work on rows, large enough that several threads share them. */
  const rowOps: [string, FloatDType, (d: Device, out: Tensor, x: Tensor, w: Tensor) => void][] = (['bf16', 'f32', 'f16'] as const).flatMap(
    (dtype): [string, FloatDType, (d: Device, out: Tensor, x: Tensor, w: Tensor) => void][] => [
      ['rmsNorm', dtype, (d, out, x, w) => d.kernels.rmsNorm(out, x, w, 1e-6, 0)],
      ['layerNorm', dtype, (d, out, x, w) => d.kernels.layerNorm(out, x, w, w, 1e-6)],
      ['silu', dtype, (d, out, x) => d.kernels.activate(out, x, 'silu')],
      ['gelu', dtype, (d, out, x) => d.kernels.activate(out, x, 'gelu')],
      ['softCap', dtype, (d, out, x) => d.kernels.softCap(out, x, 30)],
    ],
  )
  it.each(rowOps)('of a row alone and in a batch, by one thread and by two: %s %s', (_, dtype, call) => {
    const [rows, columns] = [97, 1003]
    const run = (d: Device, batched: boolean): Float32Array => {
      const arena = new Arena(d, 1 << 20)
      const random = new Random(11)
      const [x, out, w] = [arena.empty([rows, columns], dtype), arena.empty([rows, columns], dtype), arena.empty([columns], dtype)]
      d.upload(x, random.normals(rows * columns))
      d.upload(w, random.normals(columns))
      if (batched) call(d, out, x, w)
      else for (let r = 0; r < rows; r++) call(d, out.narrow(0, r, 1), x.narrow(0, r, 1), w)
      const result = d.download(out) as Float32Array
      arena.release()
      return result
    }
    const expected = run(alone, false)
    expect(sameBits(run(alone, true), expected)).toBe(true)
    expect(sameBits(run(device, true), expected)).toBe(true)
  })
})

/** Draws from the same logits `rows` times at different token indices. */
function draw(d: Device, logits: Float32Array, filter: Filter, rows: number, firstIndex = 0): Int32Array {
  const arena = new Arena(d, 1 << 20)
  const vocab = logits.length
  const x = arena.empty([rows, vocab], 'f32')
  const all = new Float32Array(rows * vocab)
  for (let r = 0; r < rows; r++) all.set(logits, r * vocab)
  d.upload(x, all)
  const perRow = (value: number, dtype: 'f32' | 'i32') => {
    const t = arena.empty([rows], dtype)
    d.upload(t, dtype === 'f32' ? new Float32Array(rows).fill(value) : new Int32Array(rows).fill(value))
    return t
  }
  const seeds = arena.empty([rows, 3], 'i32')
  d.upload(
    seeds,
    Int32Array.from({ length: rows * 3 }, (_, i) => (i % 3 === 2 ? firstIndex + Math.floor(i / 3) : [77, -5][i % 3]!)),
  )
  const tokens = arena.empty([rows], 'i32')
  d.kernels.sample(tokens, x, {
    temperature: perRow(filter.temperature, 'f32'),
    topK: perRow(filter.topK, 'i32'),
    topP: perRow(filter.topP, 'f32'),
    minP: perRow(filter.minP, 'f32'),
    seeds,
  })
  const result = d.download(tokens) as Int32Array
  arena.release()
  return result
}

describe('sample', () => {
  const random = new Random(3)
  const filters: Record<string, Filter> = {
    plain: { temperature: 1, topK: 0, topP: 1, minP: 0 },
    hot: { temperature: 2.5, topK: 0, topP: 1, minP: 0 },
    'top-k': { temperature: 1, topK: 7, topP: 1, minP: 0 },
    'top-p': { temperature: 1.2, topK: 0, topP: 0.8, minP: 0 },
    'min-p': { temperature: 1, topK: 0, topP: 1, minP: 0.1 },
    'all of them': { temperature: 0.9, topK: 20, topP: 0.9, minP: 0.05 },
  }

  it.each(Object.keys(filters))('draws tokens as often as their probabilities say (chi-square): %s', (name) => {
    const filter = filters[name]!
    const logits = random.normals(150, 1.5)
    const kept = keptTokens(Float64Array.from(logits), filter).sort((a, b) => b.weight - a.weight)
    const total = kept.reduce((sum, t) => sum + t.weight, 0)
    const draws = 40_000
    const counts = new Map<number, number>()
    for (const token of draw(device, logits, filter, draws)) counts.set(token, (counts.get(token) ?? 0) + 1)
    for (const token of counts.keys()) expect(kept.some((t) => t.id === token)).toBe(true)
    // Tokens of fewer than 10 expected draws are one class: the statistic is only then near its distribution.
    let [chi, classes, rest, restCount] = [0, 0, 0, 0]
    const term = (count: number, expected: number) => {
      chi += (count - expected) ** 2 / expected
      classes++
    }
    for (const { id, weight } of kept) {
      const expected = (draws * weight) / total
      if (expected >= 10) term(counts.get(id) ?? 0, expected)
      else {
        rest += expected
        restCount += counts.get(id) ?? 0
      }
    }
    if (rest >= 10) term(restCount, rest)
    // Mean and variance of chi-square are its degrees of freedom, and twice them; 4 deviations above: less than once in 10,000.
    const freedom = classes - 1
    expect(chi).toBeLessThan(freedom + 4 * Math.sqrt(2 * freedom) + 4)
  })

  it('gives a row the same token in any batch and by any number of threads', () => {
    const logits = random.normals(5000, 2)
    for (const filter of Object.values(filters)) {
      const batch = draw(device, logits, filter, 32)
      expect(draw(alone, logits, filter, 32)).toEqual(batch)
      for (const i of [0, 5, 31]) expect(draw(device, logits, filter, 1, i)[0]).toBe(batch[i])
    }
  })

  it('draws only what top-p keeps of a flat vocabulary of 128k, and of a peaked one', () => {
    const vocab = 128_256
    for (const [deviation, topP] of [
      [1, 0.5],
      [0.01, 0.3],
      [6, 0.99],
    ] as const) {
      const logits = random.normals(vocab, deviation)
      const filter = { temperature: 1, topK: 0, topP, minP: 0 }
      const kept = new Set(keptTokens(Float64Array.from(logits), filter).map((t) => t.id))
      for (const token of draw(device, logits, filter, 16)) expect(kept.has(token)).toBe(true)
    }
  })
})

describe('functions of one variable over their whole range', () => {
  const magnitudes = Array.from({ length: 15_000 }, (_, i) => 2 ** (-30 + i / 400))
  const xs = Float32Array.from([...magnitudes, ...magnitudes.map((v) => -v)])
  const on = (d: Device, call: (d: Device, out: Tensor, x: Tensor) => void): Float32Array => {
    const arena = new Arena(d, 1 << 18)
    const [x, out] = [arena.empty([1, xs.length], 'f32'), arena.empty([1, xs.length], 'f32')]
    d.upload(x, xs)
    call(d, out, x)
    const result = d.download(out) as Float32Array
    arena.release()
    return result
  }
  /** Name, call, least x, units of the last place. Measured 1.4, 1.7, 8.0 and 7.5; below the least x the values are under 0.005, with an error under 5e-9. */
  const functions: [string, (d: Device, out: Tensor, x: Tensor) => void, number, number][] = [
    ['silu', (d, out, x) => d.kernels.activate(out, x, 'silu'), -80, 2],
    ['tanh', (d, out, x) => d.kernels.softCap(out, x, 1), -200, 2],
    ['geluTanh', (d, out, x) => d.kernels.activate(out, x, 'geluTanh'), -3, 9],
    ['gelu', (d, out, x) => d.kernels.activate(out, x, 'gelu'), -3, 9],
  ]
  it.each(functions)('%s', (_, call, least, units) => {
    const ours = on(alone, call)
    const exact = on(createReferenceDevice(), call)
    let worst = 0
    exact.forEach((y, i) => {
      if (xs[i]! >= least) worst = Math.max(worst, Math.abs(ours[i]! - y) / Math.abs(y) / 2 ** -23)
      else expect(Math.abs(ours[i]! - y)).toBeLessThan(5e-9)
    })
    expect(worst).toBeLessThan(units)
  })
})

describe('what it refuses', () => {
  it('offsets that leave the ids, tensors of another shape or type', () => {
    const arena = new Arena(device, 1 << 16)
    const logits = arena.empty([2, 10], 'f32')
    const ints = (...values: number[]) => {
      const t = arena.empty([values.length], 'i32')
      device.upload(t, Int32Array.from(values))
      return t
    }
    const values = arena.empty([2], 'f32')
    expect(() => device.kernels.addSparse(logits, ints(0, 1, 3), ints(1, 2), values)).toThrow(/addSparse: offsets/)
    expect(() => device.kernels.addSparse(logits, ints(0, 2, 1), ints(1, 2), values)).toThrow(/addSparse: offsets/)
    expect(() => device.kernels.rmsNorm(logits, logits, arena.empty([7], 'f32'), 0, 0)).toThrow(/rmsNorm: weight/)
    expect(() => device.kernels.addRmsNorm(logits, arena.empty([2, 10], 'bf16'), logits, arena.empty([10], 'f32'), 0, 0)).toThrow(
      /one dtype/,
    )
    expect(() => device.kernels.add(logits, logits, arena.empty([2, 10], 'bf16'))).toThrow(/one dtype/)
    expect(() => device.kernels.scale(logits, arena.empty([2, 9], 'f32'), 1)).toThrow(/one shape/)
    expect(() => device.kernels.activate(logits, logits, 'swish' as 'silu')).toThrow(/activate/)
    arena.release()
  })
})
