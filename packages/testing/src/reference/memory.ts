import { ALIGNMENT, type CacheDType, type DType, type MemoryInfo, sizeOf, tensorError } from '@aphrodite/tensor'
import { testingError } from '../errors.ts'
import { fromBf16, fromE4m3, fromE5m2, fromF16, toBf16, toE4m3, toE5m2, toF16 } from './float.ts'

interface Slab {
  readonly address: number
  readonly bytes: number
  readonly buffer: ArrayBuffer
}

/** The dtypes that elements of a tensor are read and written in. */
export type ElementDType = 'f32' | 'f16' | 'bf16' | 'i32' | 'u8'

export const isElement = (dtype: DType): dtype is ElementDType =>
  dtype === 'f32' || dtype === 'f16' || dtype === 'bf16' || dtype === 'i32' || dtype === 'u8'

/** Those of a cache too. */
type StoredDType = ElementDType | CacheDType

/** A made-up address space: ArrayBuffers, each with an address that nothing else has and a gap behind it. */
export class ReferenceMemory {
  readonly #slabs: Slab[] = []
  readonly #total: number
  #used = 0
  #next = 0x1000_0000
  #last: Slab | undefined

  constructor(totalBytes: number) {
    this.#total = totalBytes
  }

  info(): MemoryInfo {
    return { total: this.#total, free: this.#total - this.#used }
  }

  allocate(bytes: number): number {
    const refuse = () =>
      tensorError(
        'OUT_OF_MEMORY',
        `the reference device cannot give ${bytes} bytes: ${this.#total - this.#used} of ${this.#total} are free`,
      )
    if (!(bytes >= 0) || bytes > this.#total - this.#used) throw refuse()
    let buffer: ArrayBuffer
    try {
      buffer = new ArrayBuffer(bytes)
    } catch {
      throw refuse()
    }
    const slab = { address: this.#next, bytes, buffer }
    this.#slabs.push(slab)
    this.#used += bytes
    this.#next += (Math.ceil(bytes / ALIGNMENT) + 16) * ALIGNMENT
    return slab.address
  }

  release(address: number): void {
    const i = this.#slabs.findIndex((s) => s.address === address)
    if (i < 0) throw testingError('BAD_ADDRESS', `release: ${address} is no address that this device gave out`)
    this.#used -= this.#slabs[i]!.bytes
    this.#last = undefined
    this.#slabs.splice(i, 1)
  }

  clear(): void {
    this.#slabs.length = 0
    this.#last = undefined
    this.#used = 0
  }

  /** `count` elements of one dtype from an address on. */
  elements(address: number, dtype: StoredDType, count: number): Elements {
    const bytes = count * sizeOf(dtype)
    const slab = this.#slabOf(address, bytes)
    return elementsOf(slab.buffer, address - slab.address, dtype, count)
  }

  #slabOf(address: number, bytes: number): Slab {
    const within = (s: Slab) => address >= s.address && address + bytes <= s.address + s.bytes
    if (this.#last && within(this.#last)) return this.#last
    const slab = this.#slabs.find(within)
    if (!slab)
      throw testingError(
        'BAD_ADDRESS',
        `[${address}, +${bytes}) is not in the memory of this device: was it released, or is a shape wrong?`,
      )
    this.#last = slab
    return slab
  }
}

/** Elements of one dtype as numbers. */
export interface Elements {
  get(i: number): number
  /** Rounds to the dtype, to nearest even; 8-bit floats saturate. */
  set(i: number, value: number): void
}

export function elementsOf(buffer: ArrayBufferLike, offset: number, dtype: StoredDType, count: number): Elements {
  if (dtype === 'bf16' || dtype === 'f16') {
    const bits = new Uint16Array(buffer, offset, count)
    const [from, to] = dtype === 'bf16' ? [fromBf16, toBf16] : [fromF16, toF16]
    return { get: (i) => from(bits[i]!), set: (i, value) => (bits[i] = to(value)) }
  }
  if (dtype === 'f8e4m3' || dtype === 'f8e5m2') {
    const bits = new Uint8Array(buffer, offset, count)
    const [from, to] = dtype === 'f8e4m3' ? [fromE4m3, toE4m3] : [fromE5m2, toE5m2]
    return { get: (i) => from(bits[i]!), set: (i, value) => (bits[i] = to(value)) }
  }
  const array =
    dtype === 'f32'
      ? new Float32Array(buffer, offset, count)
      : dtype === 'i32'
        ? new Int32Array(buffer, offset, count)
        : new Uint8Array(buffer, offset, count)
  return { get: (i) => array[i]!, set: (i, value) => (array[i] = value) }
}
