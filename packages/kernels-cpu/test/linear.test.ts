import { Arena, type FloatDType, type Tensor, type WeightFormat } from '@aphrodite/tensor'
import { afterAll, describe, expect, it } from 'vitest'
import { type CpuDevice, createCpuDevice, ISAS } from '../src/device.ts'
import { loadNative } from '../src/native.ts'
import { cached, noise, rounded, sameBits } from './numbers.ts'

const FORMATS: WeightFormat[] = ['f32', 'bf16', 'f16']
const FLOATS: FloatDType[] = ['f32', 'bf16', 'f16']
const isas = ISAS.slice(0, loadNative().bestIsa() + 1)
const MOST = 512
/** [outputs, inputs]: multiples of no block, shorter than one, and long enough for several k blocks. */
const SHAPES = [
  [1, 1],
  [5, 3],
  [37, 77],
  [100, 300],
  [515, 2051],
] as const
const BATCHES = [...Array.from({ length: 33 }, (_, i) => i + 1), 64, 65, 100, MOST]
/** Around the places where the largest shape is cut in another way, and for devices with other numbers of threads. */
const FEW = [2, 8, 9, 18, 19, 33, 100, MOST]

const numbers = cached((n, seed, dtype) => rounded(noise(n, seed), dtype))

describe.each(isas)('linear on %s', (isa) => {
  const devices: CpuDevice[] = [
    createCpuDevice({ isa, threads: 2 }),
    createCpuDevice({ isa, threads: 1 }),
    createCpuDevice({ isa, threads: 3 }),
  ]
  afterAll(() => {
    for (const device of devices) device.close()
  })

  it.each(FORMATS.flatMap((format) => FLOATS.map((dtype) => [format, dtype] as const)))(
    '%s weights, %s rows: near float64, the same bits in every batch and with any threads',
    (format, dtype) => {
      for (const [n, k] of SHAPES) {
        const weight = numbers(n * k, n + k, format)
        const rows = numbers(MOST * k, n, dtype)
        const bias = numbers(n, 3, dtype)
        const alone = new Float32Array(MOST * n)
        for (const device of devices) {
          const arena = new Arena(device, 1 << 20)
          const packed = arena.packed(n, k, format)
          device.pack(packed, { bytes: new Uint8Array(weight.buffer), dtype: 'f32', shape: [n, k], strides: [k, 1] }, 0, 0)
          const x = arena.empty([MOST, k], dtype)
          device.upload(x, rows)
          const b = arena.empty([n], dtype)
          device.upload(b, bias)
          const out = arena.empty([MOST + 1, n], 'f32')
          if (device === devices[0]) {
            for (let r = 0; r < MOST; r++) device.kernels.linear(out.narrow(0, r, 1), x.narrow(0, r, 1), packed, b)
            alone.set(device.download(out.narrow(0, 0, MOST)) as Float32Array)
            expect(worst(alone, rows, weight, bias, n, k)).toBeLessThan(2e-5)
          }
          for (const m of device !== devices[0] ? [1, 19, 100] : k > 1000 ? FEW : BATCHES) {
            device.upload(out, new Float32Array((MOST + 1) * n).fill(12345))
            device.kernels.linear(out.narrow(0, 0, m), x.narrow(0, 0, m), packed, b)
            const got = device.download(out) as Float32Array
            expect(
              sameBits(got.subarray(0, m * n), alone.subarray(0, m * n)),
              `[${m}, ${k}] x [${n}, ${k}], ${device.threads} threads`,
            ).toBe(true)
            expect(got.subarray(m * n, (m + 1) * n).every((v) => v === 12345)).toBe(true) // nothing is written past the end
          }
          arena.release()
        }
      }
    },
  )

  it.each(FLOATS)('rounds once to %s, writes strided rows and reads them', (dtype) => {
    const device = devices[0]!
    const [m, n, k] = [5, 21, 40]
    const arena = new Arena(device, 1 << 20)
    const weight = noise(n * k, 1)
    const rows = noise(m * k, 2)
    const packed = arena.packed(n, k, 'f32')
    device.pack(packed, { bytes: new Uint8Array(weight.buffer), dtype: 'f32', shape: [n, k], strides: [k, 1] }, 0, 0)
    const x = arena.empty([m, k + 9], 'f32').narrow(1, 5, k)
    device.upload(x, rows)
    const exact = arena.empty([m, n], 'f32')
    device.kernels.linear(exact, x, packed)
    const wide = arena.empty([m, n + 7], dtype)
    device.upload(wide, new Float32Array(m * (n + 7)).fill(7))
    device.kernels.linear(wide.narrow(1, 3, n), x, packed)
    expect(device.download(wide.narrow(1, 3, n))).toEqual(rounded(device.download(exact) as Float32Array, dtype))
    expect((device.download(wide.narrow(1, 0, 3)) as Float32Array).every((v) => v === 7)).toBe(true)
    expect((device.download(wide.narrow(1, n + 3, 4)) as Float32Array).every((v) => v === 7)).toBe(true)
    arena.release()
  })

  it('keeps infinities, NaN and subnormal results apart from other rows', () => {
    const device = devices[0]!
    const arena = new Arena(device, 1 << 20)
    const k = 33
    const packed = arena.packed(17, k, 'bf16')
    device.pack(
      packed,
      { bytes: new Uint8Array(new Float32Array(17 * k).fill(1).buffer), dtype: 'f32', shape: [17, k], strides: [k, 1] },
      0,
      0,
    )
    const rows = new Float32Array(3 * k)
    rows[0] = Number.POSITIVE_INFINITY
    rows[k] = Number.NaN
    rows[2 * k] = 2 ** -140
    for (const dtype of ['f32', 'bf16', 'f16'] as const) {
      const x = arena.empty([3, k], 'f32')
      device.upload(x, rows)
      const out: Tensor = arena.empty([3, 17], dtype)
      device.kernels.linear(out, x, packed)
      const got = device.download(out) as Float32Array
      expect(got[0]).toBe(Number.POSITIVE_INFINITY)
      expect(got[17 + 16]).toBeNaN()
      expect(got[2 * 17 + 3]).toBe(rounded(Float32Array.of(2 ** -140), dtype)[0])
    }
    arena.release()
  })
})

/** The largest error of the first rows against float64, in units of the output's root mean square. */
function worst(got: Float32Array, x: Float32Array, w: Float32Array, bias: Float32Array, n: number, k: number): number {
  let error = 0
  let squares = 0
  const rows = 5
  for (let r = 0; r < rows; r++)
    for (let i = 0; i < n; i++) {
      let sum = 0
      for (let c = 0; c < k; c++) sum += w[i * k + c]! * x[r * k + c]!
      sum += bias[i]!
      squares += sum * sum
      error = Math.max(error, Math.abs(sum - got[r * n + i]!))
    }
  return error / Math.sqrt(squares / (rows * n))
}
