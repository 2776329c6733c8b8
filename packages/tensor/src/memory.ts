import type { Device } from './device.ts'
import { type DType, sizeOf } from './dtype.ts'
import { tensorError } from './errors.ts'
import { Block, contiguousStrides, type Memory, product, Tensor } from './tensor.ts'
import { PackedWeight, type WeightFormat } from './weight.ts'

/** Every tensor starts at a multiple of this many bytes. */
export const ALIGNMENT = 256
const aligned = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT

export interface Slab {
  readonly address: number
  readonly bytes: number
}

/**
 * Weights and caches: allocated once, freed together. It grows by slabs, so that nobody needs to know the total beforehand.
 * `slabBytes`: the least that is asked of the device at a time.
 */
export class Arena implements Memory {
  readonly device: Device
  readonly #slabBytes: number
  readonly #slabs: Slab[] = []
  #cursor = 0
  #left = 0
  #used = 0
  readonly #block = new Block(0, 0)

  constructor(device: Device, slabBytes = 64 << 20) {
    this.device = device
    this.#slabBytes = slabBytes
  }

  /** The memory that the device gave: for measuring over the very bytes that a model is read from. */
  get slabs(): readonly Slab[] {
    return this.#slabs
  }

  /** Bytes handed out so far, alignment included. */
  get usedBytes(): number {
    return this.#used
  }

  empty(shape: readonly number[], dtype: DType): Tensor {
    return new Tensor(this.reserve(product(shape) * sizeOf(dtype)), dtype, shape, contiguousStrides(shape), this, this.#block)
  }

  /** Room for a weight matrix [outFeatures, inFeatures] in the layout that the device multiplies fastest. Zeros until it is packed. */
  packed(outFeatures: number, inFeatures: number, format: WeightFormat): PackedWeight {
    const address = this.reserve(this.device.packedBytes(format, outFeatures, inFeatures))
    return new PackedWeight(address, format, outFeatures, inFeatures, this)
  }

  /** Zeroed bytes at an address that is a multiple of ALIGNMENT. */
  reserve(byteCount: number): number {
    const bytes = aligned(Math.max(byteCount, 1))
    if (bytes > this.#left) {
      const slab = Math.max(bytes, this.#slabBytes)
      this.#cursor = this.device.allocate(slab)
      this.#slabs.push({ address: this.#cursor, bytes: slab })
      this.#left = slab
    }
    const address = this.#cursor
    this.#cursor += bytes
    this.#left -= bytes
    this.#used += bytes
    return address
  }

  /** Gives everything back to the device; tensors from here must not be used after it. */
  release(): void {
    this.#block.live = false
    for (const { address } of this.#slabs.splice(0)) this.device.release(address)
    this.#left = this.#used = 0
  }
}

/**
 * Activations: one device slab, in which allocation is arithmetic, so that the same batch shape gets the same addresses in
 * every step. `bytes` may be far more than is ever touched when the slab is only measured (`Workspace.measure`).
 */
export class Workspace implements Memory {
  readonly device: Device
  readonly bytes: number
  readonly #base: number
  readonly #free: { offset: number; bytes: number }[]
  readonly #frames: Block[][] = [[]]
  #used = 0
  peakBytes = 0

  constructor(device: Device, bytes: number) {
    this.device = device
    this.bytes = aligned(bytes)
    this.#base = device.allocate(this.bytes)
    this.#free = [{ offset: 0, bytes: this.bytes }]
  }

  empty(shape: readonly number[], dtype: DType): Tensor {
    const bytes = aligned(Math.max(product(shape) * sizeOf(dtype), 1))
    const hole = this.#free.find((f) => f.bytes >= bytes)
    if (!hole) {
      throw tensorError(
        'WORKSPACE_TOO_SMALL',
        `the workspace of ${this.bytes} bytes has no room for [${shape}] ${dtype}: ${this.#used} bytes are in use`,
      )
    }
    const { offset } = hole
    hole.offset += bytes
    hole.bytes -= bytes
    if (hole.bytes === 0) this.#free.splice(this.#free.indexOf(hole), 1)
    return new Tensor(this.#base + offset, dtype, shape, contiguousStrides(shape), this, this.#take(offset, bytes))
  }

  /**
   * The place of an earlier tensor once more, before anything else lies there: where a replayed graph writes. Throws
   * WORKSPACE_TOO_SMALL when some of it is taken.
   */
  claim({ address, block, dtype, shape, strides }: Tensor): Tensor {
    const { offset, bytes } = block
    const i = this.#free.findIndex((f) => f.offset <= offset && offset + bytes <= f.offset + f.bytes)
    const hole = this.#free[i]
    if (!hole) throw tensorError('WORKSPACE_TOO_SMALL', `bytes ${offset} to ${offset + bytes} of the workspace are taken`)
    const behind = { offset: offset + bytes, bytes: hole.offset + hole.bytes - offset - bytes }
    hole.bytes = offset - hole.offset
    this.#free.splice(i, 1, ...[hole, behind].filter((f) => f.bytes > 0))
    return new Tensor(address, dtype, shape, strides, this, this.#take(offset, bytes))
  }

  /** Passes x through fn and frees x and everything that fn allocated, except what fn returns. */
  tidy(x: Tensor, fn: (x: Tensor) => Tensor): Tensor {
    const frame: Block[] = []
    const outer = this.#frames[this.#frames.length - 1]!
    this.#frames.push(frame)
    let kept: Block | undefined
    try {
      const result = fn(x)
      kept = result.block
      return result
    } finally {
      this.#frames.pop()
      const i = outer.indexOf(x.block)
      if (i >= 0 && kept !== x.block) this.#release(outer.splice(i, 1)[0]!)
      for (let j = frame.length - 1; j >= 0; j--) {
        const block = frame[j]!
        if (block === kept) outer.push(block)
        else this.#release(block)
      }
    }
  }

  /** Frees everything: the end of a step. */
  reset(): void {
    for (const frame of this.#frames.splice(1)) for (const block of frame) this.#release(block)
    for (const block of this.#frames[0]!.splice(0)) this.#release(block)
  }

  /** Gives the slab back to the device. */
  release(): void {
    this.reset()
    this.device.release(this.#base)
  }

  #take(offset: number, bytes: number): Block {
    const block = new Block(offset, bytes)
    this.#frames[this.#frames.length - 1]!.push(block)
    this.#used += bytes
    this.peakBytes = Math.max(this.peakBytes, offset + bytes)
    return block
  }

  #release(block: Block): void {
    block.live = false
    this.#used -= block.bytes
    const free = this.#free
    let i = free.findIndex((f) => f.offset > block.offset)
    if (i < 0) i = free.length
    free.splice(i, 0, { offset: block.offset, bytes: block.bytes })
    this.#join(i)
    if (i > 0) this.#join(i - 1)
  }

  /** Makes one hole of hole i and hole i + 1 where they touch. */
  #join(i: number): void {
    const a = this.#free[i]!
    const b = this.#free[i + 1]
    if (b && a.offset + a.bytes === b.offset) a.bytes += this.#free.splice(i + 1, 1)[0]!.bytes
  }
}
