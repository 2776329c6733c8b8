import { fileURLToPath } from 'node:url'
import { Arena, type DType, type Tensor } from '@aphrodite/tensor'
import { describe, expect, it } from 'vitest'
import { createReferenceDevice, draw, type Filter, keptTokens, readSafetensors } from '../src/index.ts'
import { philox } from '../src/reference/philox.ts'

const fixture = readSafetensors(fileURLToPath(new URL('./fixtures/sampler-filters.safetensors', import.meta.url)))
const floats = (name: string) => new Float32Array(fixture[name]!.bytes.buffer)
const VOCAB = 500
const ROWS = 12
const row = (name: string, i: number) => floats(name).subarray(i * VOCAB, (i + 1) * VOCAB)

describe('filters keep what the Hugging Face processors keep', () => {
  const cases: [string, Partial<Filter>][] = [
    ['top_k-10', { topK: 10 }],
    ['top_p-0.9', { topP: 0.9 }],
    ['top_p-0.35', { topP: 0.35 }],
    ['min_p-0.08', { minP: 0.08 }],
  ]
  it.each(cases)('%s', (name, filter) => {
    for (let i = 0; i < ROWS; i++) {
      const kept = keptTokens(Float64Array.from(row('logits', i)), { temperature: 1, topK: 0, topP: 1, minP: 0, ...filter })
      const expected = [...row(name, i).keys()].filter((id) => row(name, i)[id]! > -1e29)
      expect(kept.map((t) => t.id).sort((a, b) => a - b)).toEqual(expected)
    }
  })
  it('temperature-0.7', () => {
    for (let i = 0; i < ROWS; i++) {
      const warped = row('temperature-0.7', i)
      const max = Math.max(...warped)
      for (const { id, weight } of keptTokens(Float64Array.from(row('logits', i)), { temperature: 0.7, topK: 0, topP: 1, minP: 0 }))
        expect(Math.log(weight)).toBeCloseTo(warped[id]! - max, 4)
    }
  })
})

describe('sampling ops of the reference device', () => {
  const device = createReferenceDevice()
  const arena = new Arena(device, 1 << 20)
  const put = (values: readonly number[], dtype: DType, shape = [values.length]): Tensor => {
    const t = arena.empty(shape, dtype)
    device.upload(t, dtype === 'i32' ? Int32Array.from(values) : Float32Array.from(values))
    return t
  }
  const neutral = (rows: number) => ({
    repetition: put(Array(rows).fill(1), 'f32'),
    presence: put(Array(rows).fill(0), 'f32'),
    frequency: put(Array(rows).fill(0), 'f32'),
  })

  it('repetition penalty is that of Hugging Face, over prompt and output alike', () => {
    const ids = [...new Int32Array(fixture['ids']!.bytes.buffer)]
    const context = ids.length / ROWS
    const split = 15
    const part = (from: number, to: number) =>
      Array.from({ length: ROWS }, (_, i) => ids.slice(i * context + from, i * context + to)).flat()
    const offsets = (n: number) =>
      put(
        Array.from({ length: ROWS + 1 }, (_, i) => i * n),
        'i32',
      )
    const logits = put([...floats('logits')], 'f32', [ROWS, VOCAB])
    device.kernels.penalize(
      logits,
      { ...neutral(ROWS), repetition: put(Array(ROWS).fill(1.3), 'f32') },
      {
        promptOffsets: offsets(split),
        promptIds: put(part(0, split), 'i32'),
        outputOffsets: offsets(context - split),
        outputIds: put(part(split, context), 'i32'),
      },
    )
    const expected = floats('repetition_penalty-1.3')
    device.download(logits).forEach((v, i) => {
      expect(v).toBeCloseTo(expected[i]!, 5)
    })
  })

  it('presence and frequency count output tokens only; ids outside the vocabulary are passed over', () => {
    const logits = put([1, 2, -3, 4], 'f32', [1, 4])
    device.kernels.penalize(
      logits,
      { repetition: put([2], 'f32'), presence: put([0.5], 'f32'), frequency: put([0.25], 'f32') },
      {
        promptOffsets: put([0, 3], 'i32'),
        promptIds: put([0, 99, -1], 'i32'),
        outputOffsets: put([0, 3], 'i32'),
        outputIds: put([2, 2, 3], 'i32'),
      },
    )
    expect([...device.download(logits)]).toEqual([0.5, 2, -3 * 2 - 0.5 - 0.5, 4 / 2 - 0.25 - 0.5])
  })

  it('adds to single logits', () => {
    const logits = put([0, 1, 2, 3, 4, 5], 'f32', [2, 3])
    const [offsets, ids, values] = [put([0, 1, 3], 'i32'), put([2, 0, 1], 'i32'), put([10, -20, Number.NEGATIVE_INFINITY], 'f32')]
    device.kernels.addSparse(logits, offsets, ids, values)
    expect([...device.download(logits)]).toEqual([0, 1, 12, -17, Number.NEGATIVE_INFINITY, 5])
  })

  it('log-probabilities, likeliest tokens and rank, ties to the lower id', () => {
    const logits = put([Math.log(0.5), Math.log(0.1), Math.log(0.2), Math.log(0.2)], 'f32', [1, 4])
    const [values, ids, ranks] = [arena.empty([1, 4], 'f32'), arena.empty([1, 4], 'i32'), arena.empty([1], 'i32')]
    device.kernels.logProbs(values, ids, ranks, logits, put([3], 'i32'))
    expect([...device.download(ids)]).toEqual([3, 0, 2, 3])
    expect([...device.download(ranks)]).toEqual([3])
    device.download(values).forEach((v, i) => {
      expect(v).toBeCloseTo(Math.log([0.2, 0.5, 0.2, 0.2][i]!), 6)
    })
  })

  it('rows without a likeliest token have a defined result', () => {
    const never = Number.NEGATIVE_INFINITY
    const rows = [
      [never, never, never],
      [Number.NaN, Number.NaN, Number.NaN],
      [Number.NaN, -2, Number.NaN],
      [0, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY],
    ]
    const tokens = arena.empty([4], 'i32')
    device.kernels.sample(tokens, put(rows.flat(), 'f32', [4, 3]), {
      temperature: put([1, 1, 1, 1], 'f32'),
      topK: put([0, 2, 0, 0], 'i32'),
      topP: put([1, 0.5, 0.5, 1], 'f32'),
      minP: put([0, 0, 0.1, 0], 'f32'),
      seeds: put(Array(12).fill(7), 'i32', [4, 3]),
    })
    expect([...device.download(tokens)]).toEqual([0, 0, 1, 1])
  })
})

describe('the draw', () => {
  it('philox gives the known answers of its authors', () => {
    // kat_vectors of Random123: philox4x32, 10 rounds.
    expect(philox([0, 0, 0, 0], [0, 0])).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8])
    const ones = 0xffffffff
    expect(philox([ones, ones, ones, ones], [ones, ones])).toEqual([0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd])
    expect(philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])).toEqual([
      0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1,
    ])
  })
  it('has the distribution of the weights (chi-square)', () => {
    const weights = [1, 0.5, 0.25, 0.125, 0.05, 0.02]
    const total = weights.reduce((a, b) => a + b)
    const counts = weights.map(() => 0)
    const draws = 60_000
    const kept = weights.map((weight, i) => ({ id: i * 3, weight }))
    for (let i = 0; i < draws; i++) counts[draw(kept, [123, 456, i]) / 3]!++
    const chi = weights.reduce((sum, w, i) => sum + (counts[i]! - (draws * w) / total) ** 2 / ((draws * w) / total), 0)
    // 5 degrees of freedom: above 20.5 once in 1,000 draws of the seed.
    expect(chi).toBeLessThan(20.5)
  })
})
