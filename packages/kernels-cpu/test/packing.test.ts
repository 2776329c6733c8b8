import { Arena, type DType, type FloatDType, type HostArray, type WeightFormat } from '@aphrodite/tensor'
import { afterAll, describe, expect, it } from 'vitest'
import { createCpuDevice, ISAS } from '../src/device.ts'
import { loadNative } from '../src/native.ts'
import { noise, rounded, sameBits } from './numbers.ts'

const FORMATS: WeightFormat[] = ['f32', 'bf16', 'f16']
const isas = ISAS.slice(0, loadNative().bestIsa() + 1)

describe.each(isas)('packing on %s', (isa) => {
  const device = createCpuDevice({ isa, threads: 2 })
  afterAll(() => device.close())

  it.each(FORMATS)('%s: any rectangle from any float type comes out as it went in', (format) => {
    for (const [n, k] of [
      [1, 1],
      [16, 2],
      [37, 77],
      [130, 515],
    ] as const) {
      for (const dtype of ['f32', 'f64', 'bf16', 'f16'] as const) {
        const arena = new Arena(device, 1 << 20)
        const weight = arena.packed(n, k, format)
        const want = new Float32Array(n * k)
        const rectangles = [
          [0, 0, n, k],
          [Math.floor(n / 3), Math.floor(k / 5), Math.ceil(n / 2), Math.ceil(k / 2)],
          [n - 1, k - 1, 1, 1],
          [Math.min(16, n - 1), Math.min(1, k - 1), Math.min(16, n - Math.min(16, n - 1)), Math.max(1, k - 2)],
        ] as const
        for (const [i, [row, column, rows, columns]] of rectangles.entries()) {
          if (column + columns > k) continue
          const values = rounded(noise(rows * columns, i + n), dtype === 'f64' ? 'f32' : dtype)
          device.pack(weight, hostArray(values, dtype, [rows, columns], [columns, 1]), row, column)
          const stored = rounded(values, format)
          for (let r = 0; r < rows; r++) want.set(stored.subarray(r * columns, (r + 1) * columns), (row + r) * k + column)
        }
        expect(sameBits(device.unpack(weight), want), `[${n}, ${k}] from ${dtype}`).toBe(true)
        arena.release()
      }
    }
  })

  it.each(FORMATS)('%s: transposed and strided sources', (format) => {
    const [n, k] = [48, 50]
    const arena = new Arena(device, 1 << 20)
    const values = rounded(noise(n * k * 2, 5), format)
    const transposed = arena.packed(n, k, format)
    device.pack(transposed, hostArray(values, 'f32', [n, k], [1, n]), 0, 0)
    const strided = arena.packed(n, k, format)
    device.pack(strided, hostArray(values, 'f32', [n, k], [2 * k, 1]), 0, 0)
    const wide = arena.packed(n, k, format)
    device.pack(wide, hostArray(values, 'f32', [n, k], [k, 2]), 0, 0)
    const at = (row: number, column: number) =>
      Float32Array.from({ length: n * k }, (_, i) => values[Math.floor(i / k) * row + (i % k) * column]!)
    expect(device.unpack(transposed)).toEqual(at(1, n))
    expect(device.unpack(strided)).toEqual(at(2 * k, 1))
    expect(device.unpack(wide)).toEqual(at(k, 2))
    arena.release()
  })

  it.each(FORMATS)('%s: what a source cannot be converted to exactly is rounded to nearest even', (format) => {
    const values = Float32Array.of(
      1 + 2 ** -8,
      1 + 3 * 2 ** -8,
      1 + 2 ** -11,
      65519,
      65520,
      2 ** -24,
      2 ** -25,
      3 * 2 ** -26,
      -(2 ** -130),
      0,
      -0,
      3.4e38,
    )
    const arena = new Arena(device, 1 << 20)
    const n = 32 // whole panels take the fast way
    const weight = arena.packed(n, values.length, format)
    const rows = new Float32Array(n * values.length)
    for (let r = 0; r < n; r++) rows.set(values, r * values.length)
    device.pack(weight, hostArray(rows, 'f32', [n, values.length], [values.length, 1]), 0, 0)
    const got = device.unpack(weight)
    const want = rounded(values, format)
    for (let r = 0; r < n; r++) expect(got.subarray(r * values.length, (r + 1) * values.length)).toEqual(want)
    arena.release()
  })

  it('reads all 256 values of both 8-bit floats', () => {
    const all = Uint8Array.from({ length: 256 }, (_, i) => i)
    for (const dtype of ['f8e4m3', 'f8e5m2'] as const) {
      const arena = new Arena(device, 1 << 20)
      const weight = arena.packed(16, 16, 'f32')
      device.pack(weight, { bytes: all, dtype, shape: [16, 16], strides: [16, 1] }, 0, 0)
      const [exponents, mantissas] = dtype === 'f8e4m3' ? [4, 3] : [5, 2]
      const bias = 2 ** (exponents - 1) - 1
      const want = Float32Array.from(all, (v) => {
        const sign = v & 0x80 ? -1 : 1
        const e = (v & 0x7f) >> mantissas
        const m = v & (2 ** mantissas - 1)
        if (dtype === 'f8e4m3' && (v & 0x7f) === 0x7f) return Number.NaN
        if (dtype === 'f8e5m2' && e === 31) return m ? Number.NaN : sign * Number.POSITIVE_INFINITY
        return sign * (e === 0 ? (m / 2 ** mantissas) * 2 ** (1 - bias) : (1 + m / 2 ** mantissas) * 2 ** (e - bias))
      })
      expect(device.unpack(weight)).toEqual(want)
      arena.release()
    }
  })

  it.each(FORMATS)('%s: embedding reads rows out of the panels', (format) => {
    const arena = new Arena(device, 1 << 20)
    for (const [n, k] of [
      [33, 1],
      [40, 77],
      [20, 515],
    ] as const) {
      const table = arena.packed(n, k, format)
      const values = rounded(noise(n * k, 9), format)
      device.pack(table, hostArray(values, 'f32', [n, k], [k, 1]), 0, 0)
      const ids = Int32Array.of(0, n - 1, 16, 5, 99, 100, 100 + n, -1, 2 ** 31 - 1, 104, 104)
      for (const first of [0, 100])
        for (const dtype of ['f32', 'bf16', 'f16'] as FloatDType[])
          for (const count of [1, ids.length]) {
            const idTensor = arena.empty([count], 'i32')
            device.upload(idTensor, ids.slice(0, count))
            const out = arena.empty([count, k + 3], dtype).narrow(1, 2, k)
            device.kernels.embedding(out, idTensor, table, first)
            const want = new Float32Array(count * k)
            for (let i = 0; i < count; i++) {
              const id = ids[i]! - first
              if (id >= 0 && id < n) want.set(values.subarray(id * k, (id + 1) * k), i * k)
            }
            expect(device.download(out)).toEqual(rounded(want, dtype))
          }
    }
    arena.release()
  })
})

/** A host array at an odd address, as a tensor in a mapped file may have. */
function hostArray(values: Float32Array, dtype: DType, shape: number[], strides: number[]): HostArray {
  const stored = dtype === 'f64' ? Float64Array.from(values) : dtype === 'f32' ? values : encode(values, dtype as 'bf16' | 'f16')
  const shifted = new Uint8Array(stored.byteLength + 1)
  shifted.set(new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength), 1)
  return { bytes: shifted.subarray(1), dtype, shape, strides }
}

/** Bits of numbers that the type holds exactly. */
function encode(values: Float32Array, dtype: 'bf16' | 'f16'): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
  if (dtype === 'bf16') return Uint16Array.from(bits, (b) => b >>> 16)
  return Uint16Array.from(values, (v, i) => {
    const sign = (bits[i]! >>> 16) & 0x8000
    const a = Math.abs(v)
    if (a < 2 ** -14) return sign | (a * 2 ** 24)
    return sign | (((bits[i]! & 0x7fffffff) - (112 << 23)) >>> 13)
  })
}
