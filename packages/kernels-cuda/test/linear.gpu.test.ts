import { Arena, type FloatDType, type PackedWeight, type Tensor, type WeightFormat } from '@aphrodite/tensor'
import { Random } from '@aphrodite/testing'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type CudaDevice, createCudaDevice } from '../src/index.ts'
import { describeOnCuda } from './on-cuda.ts'

/** Weight format, x, out. */
type Types = readonly [WeightFormat, FloatDType, FloatDType]
interface Case {
  readonly m: number
  readonly n: number
  readonly k: number
  readonly types: Types
  readonly bias?: FloatDType
  /** Rows of x and out are so many elements longer than their numbers. */
  readonly gap?: number
}

const STEP: Readonly<Record<FloatDType, number>> = { f32: 2 ** -22, f16: 2 ** -10, bf16: 2 ** -7 }
const TYPES: readonly Types[] = [
  ['bf16', 'bf16', 'bf16'],
  ['bf16', 'bf16', 'f32'],
  ['f16', 'f16', 'f16'],
  ['f16', 'f16', 'f32'],
  ['bf16', 'bf16', 'f16'],
  ['f32', 'f32', 'f32'],
  ['f32', 'bf16', 'bf16'],
  ['bf16', 'f32', 'f32'],
]
const CASES: readonly Case[] = [
  ...TYPES.flatMap((types): Case[] => [
    { m: 1, n: 1536, k: 4096, types },
    { m: 5, n: 4096, k: 1536, types, bias: types[2] },
    { m: 16, n: 513, k: 4864, types },
    { m: 17, n: 3072, k: 1024, types, bias: 'f32' },
    { m: 64, n: 512, k: 8192, types, bias: types[2] },
    { m: 200, n: 1000, k: 1000, types, gap: 8 },
    { m: 333, n: 4096, k: 512, types, gap: 3 },
  ]),
  // The tiles of every size of the product without cuBLASLt, and more than one batch group.
  { m: 1024, n: 6144, k: 1024, types: ['bf16', 'bf16', 'bf16'] },
  { m: 1024, n: 6144, k: 1024, types: ['bf16', 'bf16', 'bf16'], gap: 3 },
  { m: 1111, n: 2050, k: 2048, types: ['f16', 'f16', 'f16'], bias: 'f16' },
  { m: 1111, n: 2050, k: 2048, types: ['f16', 'f16', 'f16'], bias: 'f16', gap: 3 },
  // Blocks that share k: 1, 2, 4 and 8 of them, and more than fit at once.
  { m: 32, n: 16384, k: 320, types: ['bf16', 'bf16', 'f32'] },
  { m: 100, n: 6144, k: 1120, types: ['bf16', 'bf16', 'bf16'], bias: 'bf16' },
  { m: 64, n: 4096, k: 4096, types: ['bf16', 'bf16', 'bf16'], bias: 'bf16' },
  { m: 128, n: 4096, k: 2048, types: ['f16', 'f16', 'f16'] },
  { m: 33, n: 34000, k: 96, types: ['f16', 'f16', 'f32'], bias: 'f32' },
  { m: 2048, n: 2048, k: 512, types: ['f32', 'f32', 'f32'] },
]

const describeCase = ({ m, n, k, types, bias, gap }: Case): string =>
  `[${m}, ${k}] ${types[1]} · ${types[0]} [${n}, ${k}] → ${types[2]}${bias ? ` + bias ${bias}` : ''}${gap ? `, rows ${gap} apart` : ''}`

for (const cublas of ['cuBLASLt', 'our own kernels'] as const)
  describeOnCuda(`linear on CUDA by ${cublas}`, () => {
    let device: CudaDevice
    beforeAll(() => {
      const before = process.env['APHRODITE_CUBLAS']
      if (cublas !== 'cuBLASLt') process.env['APHRODITE_CUBLAS'] = '0'
      device = createCudaDevice()
      if (before === undefined) delete process.env['APHRODITE_CUBLAS']
      else process.env['APHRODITE_CUBLAS'] = before
      if (cublas !== 'cuBLASLt') expect(device.blas).toBe(false)
    })
    afterAll(() => device?.close())

    it.each(CASES.map((c) => [describeCase(c), c] as const))('%s', (_, c) => {
      const arena = new Arena(device, 1 << 20)
      const { w, x, whole, out, bias } = operands(device, arena, c)
      device.kernels.linear(out, x, w, bias)
      const first = device.download(out)
      expect(worstError(device, c, first, w, x, bias)).toBeLessThanOrEqual(1)
      // The gaps between rows are nobody's.
      if (c.gap) expect(device.download(whole.narrow(1, c.n, c.gap)).every(Number.isNaN)).toBe(true)
      device.kernels.linear(out, x, w, bias)
      expect(same(device.download(out), first)).toBe(true)
      const graph = device.capture(() => device.kernels.linear(out, x, w, bias))
      device.upload(out, new Float32Array(c.m * c.n))
      graph.replay()
      expect(same(device.download(out), first)).toBe(true)
      graph.release()
      arena.release()
    })

    it('captures a shape that it has not met', async () => {
      const arena = new Arena(device, 1 << 20)
      const c: Case = { m: 72, n: 1504, k: 1120, types: ['bf16', 'bf16', 'bf16'], bias: 'bf16' }
      const { w, x, out, bias } = operands(device, arena, c)
      const graph = device.capture(() => device.kernels.linear(out, x, w, bias))
      graph.replay()
      expect(worstError(device, c, device.download(out), w, x, bias)).toBeLessThanOrEqual(1)
      graph.release()
      arena.release()
    })
  })

/** Weights, x with NaN between its rows, a poisoned out. */
function operands(device: CudaDevice, arena: Arena, { m, n, k, types: [format, xType, outType], bias: biasType, gap = 0 }: Case) {
  const random = new Random(m * 7919 + n)
  const w = arena.packed(n, k, format)
  const values = random.normals(n * k, k ** -0.5)
  device.pack(w, { bytes: new Uint8Array(values.buffer), dtype: 'f32', shape: [n, k], strides: [k, 1] }, 0, 0)
  const poisoned = (rows: number, columns: number, dtype: FloatDType) => {
    const whole = arena.empty([rows, columns + gap], dtype)
    device.upload(whole, new Float32Array(rows * (columns + gap)).fill(Number.NaN))
    return whole
  }
  const x = poisoned(m, k, xType).narrow(1, 0, k)
  const rows = random.normals(m * k, 1)
  device.upload(x, { bytes: new Uint8Array(rows.buffer), dtype: 'f32', shape: [m, k], strides: [k, 1] })
  const whole = poisoned(m, n, outType)
  const bias = biasType && arena.empty([n], biasType)
  if (bias) device.upload(bias, random.normals(n, 1))
  return { w, x, whole, out: whole.narrow(1, 0, n), bias }
}

/** At some places, as a part of what is allowed there: sums in f64 of the numbers as they are stored. */
function worstError(device: CudaDevice, c: Case, got: ArrayLike<number>, w: PackedWeight, x: Tensor, bias: Tensor | undefined): number {
  const [weights, rows, biases] = [device.unpack(w), device.download(x), bias && device.download(bias)]
  const random = new Random(5)
  const { m, n, k } = c
  // Tensor cores cut what is below an f32's last bit; f32 itself rounds, and TF32 would be a hundred times as far off.
  const slack = c.types[0] === 'f32' || c.types[0] !== c.types[1] ? 1e-5 : 2e-6 * Math.sqrt(k)
  let worst = 0
  for (let i = 0; i < 300; i++) {
    const [r, col] = i === 0 ? [m - 1, n - 1] : [random.below(m), random.below(n)]
    let sum = biases ? biases[col]! : 0
    for (let j = 0; j < k; j++) sum += rows[r * k + j]! * weights[col * k + j]!
    const error = Math.abs(got[r * n + col]! - sum) / (Math.abs(sum) * STEP[c.types[2]] + slack)
    // Not Math.max: NaN must not pass.
    if (!(error <= worst)) worst = error
  }
  return worst
}

const same = (a: { buffer: ArrayBufferLike; byteOffset: number; byteLength: number }, b: typeof a): boolean =>
  Buffer.compare(Buffer.from(a.buffer, a.byteOffset, a.byteLength), Buffer.from(b.buffer, b.byteOffset, b.byteLength)) === 0
