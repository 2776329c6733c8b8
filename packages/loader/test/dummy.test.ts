import { createHash } from 'node:crypto'
import { product, sizeOf } from '@aphrodite/tensor'
import { expect, test } from 'vitest'
import { dummyTensors, repeated } from '../src/dummy.ts'
import { loadNative } from '../src/native.ts'

/** bf16 and f16 bits as numbers, by the formats' definitions. */
const bf16 = (bits: number): number => new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!
const f16 = (bits: number): number => {
  const exponent = (bits >> 10) & 31
  const fraction = (bits & 1023) / 1024
  return (bits & 0x8000 ? -1 : 1) * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction)
}

const expected = [
  { name: 'embed', shape: [300, 512] },
  { name: 'norm', shape: [512] },
  { name: 'big', shape: [1024, 1024] },
  { name: 'scalar', shape: [] },
  { name: 'empty', shape: [0, 3] },
]

test.each(['f32', 'bf16', 'f16'] as const)('%s: right shapes, small numbers around 0, the same for the same seed', (dtype) => {
  const all = (seed: number) => [...dummyTensors(expected, dtype, seed)].length
  const hashes = (seed: number): string[] => {
    const list: string[] = []
    for (const { array } of dummyTensors(expected, dtype, seed)) list.push(createHash('sha1').update(array.bytes).digest('hex'))
    return list
  }
  expect(all(1)).toBe(expected.length)
  expect(hashes(1)).toEqual(hashes(1))
  expect(hashes(1)[0]).not.toBe(hashes(2)[0])
  const starts = new Set<string>()
  for (const { name, array } of dummyTensors(expected, dtype, 1)) {
    const { shape } = expected.find((e) => e.name === name)!
    expect(array).toMatchObject({ dtype, shape })
    expect(array.bytes.length).toBe(product(shape) * sizeOf(dtype))
    expect(array.bytes.byteOffset % 64).toBe(0)
    if (product(shape) > 1) starts.add(Buffer.from(array.bytes.subarray(0, 64)).toString('hex'))
    if (name !== 'big') continue
    const bytes = array.bytes.slice().buffer
    const values = dtype === 'f32' ? new Float32Array(bytes) : Float32Array.from(new Uint16Array(bytes), dtype === 'bf16' ? bf16 : f16)
    let [sum, squares, most] = [0, 0, 0]
    for (const v of values) {
      sum += v
      squares += v * v
      most = Math.max(most, Math.abs(v))
    }
    // Uniform in (-0.02, 0.02): variance 0.02² / 3. A million draws of it, five standard errors.
    expect(Math.abs(sum / values.length)).toBeLessThan((5 * 0.02) / Math.sqrt(3 * 1e6))
    expect(Math.abs(squares / values.length / (0.02 ** 2 / 3) - 1)).toBeLessThan(0.01)
    expect(most).toBeLessThanOrEqual(0.0201)
    expect(most).toBeGreaterThan(0.0199)
  }
  // No two tensors begin alike.
  expect(starts.size).toBe(3)
})

test('the shapes of an 8B model cost little time and memory', () => {
  function* shapes() {
    yield { name: 'embed', shape: [128_256, 4096] }
    for (let i = 0; i < 32; i++) for (const rows of [6144, 4096, 28_672, 14_336]) yield { name: `${i}.${rows}`, shape: [rows, 4096] }
    yield { name: 'head', shape: [128_256, 4096] }
  }
  const before = process.memoryUsage().rss
  const start = performance.now()
  let [total, sum] = [0, 0]
  for (const { array } of dummyTensors(shapes(), 'bf16', 3)) {
    total += array.bytes.length
    sum += array.bytes[array.bytes.length - 1]!
  }
  expect(total).toBeGreaterThan(15e9)
  expect(sum).toBeGreaterThan(0)
  expect(performance.now() - start).toBeLessThan(3_000)
  expect(process.memoryUsage().rss - before).toBeLessThan(200e6)
})

test('breaking off early, shapes that cannot be', () => {
  let view: Uint8Array | undefined
  for (const { array } of dummyTensors(expected, 'f32')) {
    view = array.bytes
    break
  }
  expect(view).toBeDefined()
  expect([...dummyTensors([], 'f32')]).toEqual([])
  for (const shape of [[-1], [1.5], [2 ** 40, 2 ** 40], [Number.NaN]])
    expect(() => [...dummyTensors([{ name: 'w', shape }], 'f32')]).toThrow(
      expect.objectContaining({ code: 'LOADER_OPTION', message: expect.stringContaining('w of shape') }),
    )
})

test('without the addon the same bytes are copied', () => {
  const unit = new Uint8Array(2 * 4096).map((_, i) => (i * 31) % 256)
  for (const bytes of [1, 8191, 8192, 8193, 100_000]) {
    const [mapped, copied] = [repeated(unit, bytes, loadNative()), repeated(unit, bytes, undefined)]
    expect(Buffer.compare(new Uint8Array(mapped.buffer), new Uint8Array(copied.buffer))).toBe(0)
    expect(copied.buffer.byteLength).toBe(bytes)
    mapped.release()
    copied.release()
  }
})
