import { constants } from 'node:buffer'
import { contiguousStrides, type FloatDType, type NamedArray, product, sizeOf } from '@aphrodite/tensor'
import { loaderError } from './errors.ts'
import { loadNative, type Native } from './native.ts'

/** What a model expects of a checkpoint. */
export interface ExpectedTensor {
  readonly name: string
  readonly shape: readonly number[]
}

/** Uniform in (-0.02, 0.02): about what models are initialised with, so that activations neither vanish nor overflow. */
const AMPLITUDE = 0.02

/**
 * Bytes of random numbers that all tensors share: 4 MB in whole pages, a prime number of them so that the rows of a matrix
 * repeat as late as they can.
 */
const PATTERN_BYTES = 1021 * 4096

/** Consecutive tensors start this far apart in the pattern. */
const STEP_BYTES = 37 * 4096

/**
 * Small random weights of the right names and shapes, without a file: for measuring a model's speed and memory. The same
 * seed gives the same numbers. Arrays are good until the iteration ends; all of them are windows of one pattern that
 * repeats in memory, so that a model of any size costs a few megabytes.
 */
export function* dummyTensors(expected: Iterable<ExpectedTensor>, dtype: FloatDType, seed = 0): Generator<NamedArray, void, undefined> {
  const tensors = [...expected]
  const sizes = tensors.map(({ name, shape }) => bytesOf(name, shape, dtype))
  const longest = sizes.reduce((a, b) => Math.max(a, b), 0)
  const memory = repeated(pattern(dtype, seed), longest + PATTERN_BYTES, loadNative())
  try {
    for (const [i, { name, shape }] of tensors.entries()) {
      const bytes = new Uint8Array(memory.buffer, (i * STEP_BYTES) % PATTERN_BYTES, sizes[i]!)
      yield { name, array: { bytes, dtype, shape, strides: contiguousStrides(shape) } }
    }
  } finally {
    memory.release()
  }
}

function bytesOf(name: string, shape: readonly number[], dtype: FloatDType): number {
  const bytes = product(shape) * sizeOf(dtype)
  if (!shape.every((n) => Number.isSafeInteger(n) && n >= 0) || bytes > constants.MAX_LENGTH - PATTERN_BYTES)
    throw loaderError(
      'LOADER_OPTION',
      `dummyTensors: ${name} of shape [${shape}] is more than an array of Node ${process.versions.node} can hold.`,
    )
  return bytes
}

/** `bytes` bytes in which the pattern repeats: the same pages over and over where the system can, else copies. */
export function repeated(unit: Uint8Array, bytes: number, native: Native | undefined): { buffer: ArrayBuffer; release: () => void } {
  if (native?.repeat) {
    try {
      const buffer = native.repeat(unit, bytes)
      return { buffer, release: () => native.unmap(buffer) }
    } catch {
      // A system with other pages, or without room for so many mappings.
    }
  }
  const copy = new Uint8Array(bytes)
  for (let at = 0; at < bytes; at += unit.length) copy.set(at + unit.length > bytes ? unit.subarray(0, bytes - at) : unit, at)
  return { buffer: copy.buffer, release: () => {} }
}

function pattern(dtype: FloatDType, seed: number): Uint8Array {
  const next = xorshift(seed)
  const n = PATTERN_BYTES / sizeOf(dtype)
  const floats = new Float32Array(n)
  for (let i = 0; i < n; i++) floats[i] = (next() / 2 ** 31 - 1) * AMPLITUDE
  if (dtype === 'f32') return new Uint8Array(floats.buffer)
  const bits = new Uint32Array(floats.buffer)
  const half = new Uint16Array(n)
  for (let i = 0; i < n; i++) half[i] = dtype === 'bf16' ? toBf16(bits[i]!) : toF16(bits[i]!)
  return new Uint8Array(half.buffer)
}

/** Rounded to nearest, halves up: of random numbers nobody asks more. */
const toBf16 = (f32: number): number => (f32 + 0x8000) >>> 16

/** For magnitudes below 1; those below 2^-14 become 0. */
function toF16(f32: number): number {
  const sign = (f32 >>> 16) & 0x8000
  const rounded = (f32 & 0x7fffffff) + 0x1000
  return rounded < 0x38800000 ? sign : sign | ((rounded - 0x38000000) >>> 13)
}

/** Marsaglia's 32-bit xorshift: numbers in [0, 2^32). */
function xorshift(seed: number): () => number {
  // Neighbouring seeds are spread out; 0 would stay 0.
  let x = Math.imul(seed + 1, 0x9e3779b1) | 1
  return () => {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    return x >>> 0
  }
}
