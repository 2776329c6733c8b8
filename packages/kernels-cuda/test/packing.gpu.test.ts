import { Arena, type Device, type DType, type HostArray, product, sizeOf, type WeightFormat } from '@aphrodite/tensor'
import { createReferenceDevice, Random } from '@aphrodite/testing'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type CudaDevice, createCudaDevice } from '../src/index.ts'
import { describeOnCuda } from './on-cuda.ts'

const FORMATS: readonly WeightFormat[] = ['f32', 'bf16', 'f16']
const SOURCES: readonly DType[] = ['f32', 'f64', 'bf16', 'f16']

type Rectangle = readonly [row: number, column: number, source: HostArray]

describeOnCuda('packing on CUDA', () => {
  const reference = createReferenceDevice()
  let device: CudaDevice
  beforeAll(() => {
    device = createCudaDevice()
  })
  afterAll(() => device?.close())

  /** What a weight holds after these rectangles were written into it, one after the other. */
  function packed(on: Device, format: WeightFormat, n: number, k: number, rectangles: readonly Rectangle[]): Buffer {
    const arena = new Arena(on, 1 << 16)
    const weight = arena.packed(n, k, format)
    for (const [row, column, source] of rectangles) on.pack(weight, source, row, column)
    const got = on.unpack(weight)
    arena.release()
    return Buffer.from(got.buffer, got.byteOffset, got.byteLength)
  }
  function expectSame(format: WeightFormat, n: number, k: number, rectangles: readonly Rectangle[]): void {
    expect(packed(device, format, n, k, rectangles).equals(packed(reference, format, n, k, rectangles))).toBe(true)
  }

  it.each(FORMATS)('%s: any rectangle of any float type', (format) => {
    for (const [n, k] of [
      [1, 1],
      [16, 2],
      [37, 77],
      [130, 515],
    ] as const)
      for (const [i, dtype] of SOURCES.entries()) {
        const part = (rows: number, columns: number) => numbers(dtype, [rows, columns], [columns, 1], n + i)
        const [row, column] = [Math.floor(n / 3), Math.floor(k / 5)]
        expectSame(format, n, k, [
          [0, 0, part(n, k)],
          [row, column, part(n - row, Math.ceil(k / 2))],
          [n - 1, k - 1, part(1, 1)],
        ])
      }
  })

  it.each(FORMATS)('%s: transposed, gaps between rows, gaps between numbers', (format) => {
    for (const dtype of ['bf16', 'f16', 'f32'] as const)
      for (const strides of [
        [1, 48],
        [1, 60],
        [100, 1],
        [50, 2],
        [3, 200],
        [0, 1],
      ])
        expectSame(format, 48, 50, [[0, 0, numbers(dtype, [48, 50], strides, 5)]])
  })

  it.each(FORMATS)('%s: more than pinned memory takes at once', { timeout: 120_000 }, (format) => {
    // Rows, columns and single rows of more than 8 MB.
    for (const [n, k, strides] of [
      [700, 7000, [7000, 1]],
      [700, 7000, [1, 700]],
      [2, 4_300_000, [4_300_000, 1]],
      [4_300_000, 1, [1, 1]],
    ] as const)
      expectSame(format, n, k, [[0, 0, numbers('bf16', [n, k], strides, 3)]])
    expectSame(format, 9, 300, [[2, 7, numbers('f32', [7, 290], [1_200_000, 1], 4)]])
  })

  it('reads all 256 values of both 8-bit floats, rows and columns', () => {
    const all = Uint8Array.from({ length: 256 }, (_, i) => i)
    for (const [dtype, mantissas, bias] of [
      ['f8e4m3', 3, 7],
      ['f8e5m2', 2, 15],
    ] as const) {
      const values = Float32Array.from(all, (v) => {
        const sign = v & 0x80 ? -1 : 1
        const exponent = (v & 0x7f) >> mantissas
        const m = (v & (2 ** mantissas - 1)) / 2 ** mantissas
        if (dtype === 'f8e4m3' && (v & 0x7f) === 0x7f) return Number.NaN
        if (dtype === 'f8e5m2' && exponent === 31) return m ? Number.NaN : sign * Number.POSITIVE_INFINITY
        return sign * (exponent === 0 ? m * 2 ** (1 - bias) : (1 + m) * 2 ** (exponent - bias))
      })
      const arena = new Arena(device, 1 << 16)
      for (const strides of [
        [16, 1],
        [1, 16],
      ] as const) {
        const weight = arena.packed(16, 16, 'f32')
        device.pack(weight, { bytes: all, dtype, shape: [16, 16], strides }, 0, 0)
        const want = values.map((_, i) => values[Math.floor(i / 16) * strides[0] + (i % 16) * strides[1]]!)
        expect(device.unpack(weight)).toEqual(want)
      }
      arena.release()
    }
  })

  it('may be followed at once by a product, and the source may change', async () => {
    const arena = new Arena(device, 1 << 20)
    const [n, k] = [512, 1024]
    const [x, y] = [arena.empty([40, k], 'bf16'), arena.empty([40, n], 'f32')]
    device.upload(x, new Float32Array(40 * k).fill(1))
    for (let i = 1; i <= 50; i++) {
      const weight = arena.packed(n, k, 'bf16')
      const values = new Float32Array(n * k).fill(i)
      device.pack(weight, { bytes: new Uint8Array(values.buffer), dtype: 'f32', shape: [n, k], strides: [k, 1] }, 0, 0)
      values.fill(Number.NaN)
      device.kernels.linear(y, x, weight)
      const wrong = device.download(y).filter((v) => v !== i * k).length
      expect(wrong, `weights of ${i}`).toBe(0)
    }
    arena.release()
  })

  it('is an error inside a capture', () => {
    const arena = new Arena(device, 1 << 16)
    const weight = arena.packed(16, 16, 'bf16')
    expect(() => device.capture(() => device.pack(weight, numbers('bf16', [16, 16], [16, 1], 1), 0, 0))).toThrow(/capture/)
    arena.release()
  })
})

/** Random bits that make finite numbers of moderate size, at an odd address as in a file. */
function numbers(dtype: DType, shape: readonly number[], strides: readonly number[], seed: number): HostArray {
  const size = sizeOf(dtype)
  const last = shape.reduce((sum, n, i) => sum + (n - 1) * strides[i]!, 0)
  const random = new Random(seed)
  const values = random.normals(Math.min(last + 1, 100_003), 1)
  const bytes = new Uint8Array((last + 1) * size + 1)
  const view = new DataView(bytes.buffer, 1)
  const bits = new Uint32Array(values.buffer)
  expect(product(shape)).toBeGreaterThan(0)
  for (let i = 0; i <= last; i++) {
    const j = i % values.length
    if (dtype === 'f64') view.setFloat64(i * 8, values[j]!, true)
    else if (dtype === 'f32') view.setUint32(i * 4, bits[j]!, true)
    else if (dtype === 'bf16') view.setUint16(i * 2, bits[j]! >>> 16, true)
    else if (dtype === 'f16') view.setUint16(i * 2, (bits[j]! >>> 16) & 0xbfff, true)
    else throw new Error(`there are no ${dtype} numbers here`)
  }
  return { bytes: bytes.subarray(1), dtype, shape, strides }
}
