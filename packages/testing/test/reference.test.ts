import { Arena, type DType, type FloatDType, PagedCache, type Tensor } from '@aphrodite/tensor'
import { describe, expect, it } from 'vitest'
import { createReferenceDevice } from '../src/index.ts'
import { erfc } from '../src/reference/math.ts'

const device = createReferenceDevice()
const { kernels } = device
const arena = new Arena(device, 1 << 20)

function put(values: readonly number[], dtype: DType = 'f32', shape: readonly number[] = [values.length]): Tensor {
  const t = arena.empty(shape, dtype)
  device.upload(t, dtype === 'i32' ? Int32Array.from(values) : Float32Array.from(values))
  return t
}
const empty = (shape: readonly number[], dtype: DType = 'f32') => arena.empty(shape, dtype)
const read = (t: Tensor) => [...device.download(t)]
function close(t: Tensor, expected: readonly number[], digits = 6): void {
  const got = read(t)
  expect(got.length).toBe(expected.length)
  got.forEach((v, i) => {
    expect(v).toBeCloseTo(expected[i]!, digits)
  })
}
function packed(values: readonly number[], rows: number, columns: number, format: FloatDType = 'f32') {
  const w = arena.packed(rows, columns, format)
  const bytes = new Uint8Array(Float32Array.from(values).buffer)
  device.pack(w, { bytes, dtype: 'f32', shape: [rows, columns], strides: [columns, 1] }, 0, 0)
  return w
}

describe('linear layers', () => {
  it('multiplies by the transpose and adds the bias', () => {
    const out = empty([2, 3])
    kernels.linear(out, put([1, 2, 3, 4], 'f32', [2, 2]), packed([1, 0, 0, 1, 1, -1], 3, 2), put([10, 20, 30]))
    expect(read(out)).toEqual([11, 22, 29, 13, 24, 29])
  })
  it('packs parts anywhere, transposed sources too, and unpacks', () => {
    const w = arena.packed(3, 2, 'bf16')
    const bytes = new Uint8Array(Float32Array.from([1, 2, 3, 4]).buffer)
    device.pack(w, { bytes, dtype: 'f32', shape: [2, 2], strides: [1, 2] }, 1, 0)
    expect([...device.unpack(w)]).toEqual([0, 0, 1, 3, 2, 4])
  })
  it('looks rows up, zeros for ids of other ranks', () => {
    const out = empty([4, 2])
    kernels.embedding(out, put([5, 6, 4, 8], 'i32'), packed([1, 2, 3, 4, 5, 6], 3, 2), 5)
    expect(read(out)).toEqual([1, 2, 3, 4, 0, 0, 0, 0])
  })
  it('gathers rows, zeros for rows that are not there', () => {
    const out = empty([3, 2])
    kernels.gatherRows(out, put([1, 2, 3, 4], 'f32', [2, 2]), put([1, 0, 7], 'i32'))
    expect(read(out)).toEqual([3, 4, 1, 2, 0, 0])
  })
  it('feeds the last tokens to the ids that have a source', () => {
    const ids = put([5, 6, 7, 8], 'i32')
    kernels.feedTokens(ids, put([40, 41], 'i32'), put([1, -1, 0, 2], 'i32'))
    expect(read(ids)).toEqual([41, 6, 40, 8])
  })
})

describe('norms', () => {
  it('rmsNorm, with and without an offset of its weight', () => {
    const x = put([3, 4], 'f32', [1, 2]) // mean square 12.5
    const out = empty([1, 2])
    kernels.rmsNorm(out, x, put([1, 2]), 0, 0)
    close(out, [3 / Math.sqrt(12.5), 8 / Math.sqrt(12.5)])
    kernels.rmsNorm(out, x, put([0, 1]), 12.5, 1)
    close(out, [3 / 5, 8 / 5])
  })
  it('addRmsNorm rounds the sum to the type of the residual first', () => {
    const residual = put([256, 256], 'bf16', [1, 2])
    const out = empty([1, 2], 'bf16')
    kernels.addRmsNorm(out, residual, put([1, 0], 'bf16', [1, 2]), put([1, 1], 'bf16'), 0, 0)
    expect(read(residual)).toEqual([256, 256]) // 257 is no bfloat16: it lies midway, 256 is the even one
    expect(read(out)).toEqual([1, 1])
  })
  it('addRmsNorm keeps the sum in f32 where the residual is f32', () => {
    const residual = put([256, 0], 'f32', [1, 2])
    const out = empty([1, 2], 'bf16')
    kernels.addRmsNorm(out, residual, put([1, 0], 'bf16', [1, 2]), put([1, 1], 'bf16'), 0, 0)
    expect(read(residual)).toEqual([257, 0])
    expect(read(out)).toEqual([1.4140625, 0]) // √2 in bfloat16
    expect(() => kernels.addRmsNorm(residual, out, residual, put([1, 1]), 0, 0)).toThrow(/addRmsNorm: residual is bf16/)
  })
  it('layerNorm', () => {
    const out = empty([1, 4])
    kernels.layerNorm(out, put([1, 2, 3, 4], 'f32', [1, 4]), put([1, 1, 1, 2]), put([0, 0, 0, 1]), 0)
    const s = Math.sqrt(1.25)
    close(out, [-1.5 / s, -0.5 / s, 0.5 / s, 3 / s + 1])
  })
})

describe('functions of one variable', () => {
  it('erfc has the values of tables', () => {
    const table: [number, number][] = [
      [0, 1],
      [0.5, 0.4795001221869535],
      [1, 0.15729920705028513],
      [2, 0.004677734981047266],
      [3, 2.209049699858544e-5],
      [5, 1.5374597944280349e-12],
      [-1, 1.8427007929497148],
    ]
    for (const [x, y] of table) expect(Math.abs(erfc(x) / y - 1)).toBeLessThan(1e-13)
  })
  it('activations', () => {
    const x = put([-2, 0, 1.5], 'f32', [1, 3])
    const out = empty([1, 3])
    kernels.activate(out, x, 'silu')
    close(out, [-0.2384058440442351, 0, 1.2263617141])
    kernels.activate(out, x, 'gelu')
    close(out, [-0.0455002638963584, 0, 1.399789198])
    kernels.activate(out, x, 'geluTanh')
    close(out, [-0.04540230591222, 0, 1.39957157689])
    kernels.activate(out, x, 'relu')
    expect(read(out)).toEqual([0, 0, 1.5])
    kernels.activate(out, x, 'relu2')
    expect(read(out)).toEqual([0, 0, 2.25])
  })
  it('activateAndMul takes the gate from the first half', () => {
    const out = empty([2, 2])
    kernels.activateAndMul(out, put([1, -1, 5, 6, 2, 3, 7, 8], 'f32', [2, 4]), 'relu')
    expect(read(out)).toEqual([5, 0, 14, 24])
  })
  it('softCap, scale, add, fill, copy', () => {
    const x = put([-100, 0.5], 'f32', [1, 2])
    const out = empty([1, 2])
    kernels.softCap(out, x, 30)
    close(out, [-30 * Math.tanh(100 / 30), 30 * Math.tanh(1 / 60)], 5)
    kernels.scale(out, x, 2)
    expect(read(out)).toEqual([-200, 1])
    kernels.add(out, out, x)
    expect(read(out)).toEqual([-300, 1.5])
    const half = empty([1, 2], 'f16')
    kernels.copy(half, put([65519, 1 / 3], 'f32', [1, 2]))
    expect(read(half)).toEqual([65504, 0.333251953125])
    kernels.fill(half, -1)
    expect(read(half)).toEqual([-1, -1])
  })
})

describe('rotary', () => {
  const quarter = [0, 0, 1, 1] // cos, cos, sin, sin of two right angles
  it('halves', () => {
    const q = put([1, 2, 3, 4, 9], 'f32', [1, 1, 5])
    const k = put([1, 0, 0, 0, 7], 'f32', [1, 1, 5])
    kernels.rotary(q, k, put([0], 'i32'), put(quarter, 'f32', [1, 4]), {})
    expect(read(q)).toEqual([-3, -4, 1, 2, 9])
    expect(read(k)).toEqual([0, 0, 1, 0, 7])
  })
  it('neighbouring pairs, and the second half of the table by selector', () => {
    const q = put([1, 2, 3, 4], 'f32', [1, 1, 4])
    const table = put([1, 1, 0, 0, ...quarter], 'f32', [2, 4])
    kernels.rotary(q, put([0, 0, 0, 0], 'f32', [1, 1, 4]), put([0], 'i32'), table, {
      interleaved: true,
      selector: put([11], 'i32'),
      bound: 10,
    })
    expect(read(q)).toEqual([-2, 1, -4, 3])
  })
})

describe('attention', () => {
  const shape = { kvHeads: 1, keyDim: 1, valueDim: 2, dtype: 'f32' } as const
  /** Three tokens with keys 0, ln 2, ln 3 and values (1, 0), (0, 1), (1, 1), two pages apart in a cache. */
  function run(options: Parameters<typeof kernels.pagedAttention>[4], length = 3): number[] {
    const cache = new PagedCache(arena.reserve(4 * device.pageBytes(shape)), shape, 4)
    const slots = put(
      [33, 34, 35].map((s) => s - 1),
      'i32',
    )
    kernels.writeCache(cache, put([0, Math.log(2), Math.log(3)], 'f32', [3, 1, 1]), put([1, 0, 0, 1, 1, 1], 'f32', [3, 1, 2]), slots)
    const out = empty([1, 2])
    kernels.pagedAttention(
      out,
      put([1], 'f32', [1, 1, 1]),
      cache,
      {
        slots,
        queryStarts: put([0, 1], 'i32'),
        contextLengths: put([length], 'i32'),
        pageTables: put([2], 'i32', [1, 1]),
        maxQueryLength: 1,
        maxContextLength: length,
      },
      options,
    )
    return read(out)
  }
  const near = (got: number[], expected: number[]) => {
    for (const [i, v] of expected.entries()) expect(got[i]).toBeCloseTo(v, 6)
  }
  it('weighs values by softmax of the scores', () => near(run({ scale: 1 }), [4 / 6, 5 / 6]))
  it('sees no later token', () => near(run({ scale: 1 }, 2), [1 / 3, 2 / 3]))
  it('scales', () => near(run({ scale: 2 }), [10 / 14, 13 / 14]))
  it('sees a window', () => near(run({ scale: 1, window: 2 }), [3 / 5, 5 / 5]))
  it('has a sink that takes a share', () => near(run({ scale: 1, sinks: put([Math.log(4)]) }), [4 / 10, 5 / 10]))
  it('adds ALiBi by distance', () => {
    // slope ln 2: the weights become 1/4, 2/2, 3.
    near(run({ scale: 1, alibiSlopes: put([Math.log(2)]) }), [3.25 / 4.25, 4 / 4.25])
  })
  it('caps scores', () => {
    const w = [0, Math.log(2), Math.log(3)].map((s) => Math.exp(0.5 * Math.tanh(s / 0.5)))
    const total = w[0]! + w[1]! + w[2]!
    near(run({ scale: 1, softCap: 0.5 }), [(w[0]! + w[2]!) / total, (w[1]! + w[2]!) / total])
  })
})

describe('what it refuses', () => {
  it('wrong shapes, types and addresses', () => {
    const x = put([1, 2, 3, 4], 'f32', [2, 2])
    expect(() => kernels.add(x, x, put([1, 2]))).toThrow(/add: b is \[2\], it should be \[2,2\]/)
    expect(() => kernels.add(x, x, put([1, 2, 3, 4], 'bf16', [2, 2]))).toThrow(/bf16/)
    expect(() => device.release(12345)).toThrow(/12345/)
    expect(() => createReferenceDevice({ memoryBytes: 100 }).allocate(101)).toThrow(expect.objectContaining({ code: 'OUT_OF_MEMORY' }))
    const gone = new Arena(device, 1024)
    const t = gone.empty([4], 'f32')
    gone.release()
    expect(() => device.download(t)).toThrow(expect.objectContaining({ code: 'BAD_ADDRESS' }))
  })
})
