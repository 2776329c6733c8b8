import type { Device } from './device.ts'
import { type DType, sizeOf } from './dtype.ts'
import { tensorError } from './errors.ts'
import type { Kernels } from './kernels.ts'

/** A stretch of a workspace or an arena. `live` turns false when it is given back. */
export class Block {
  live = true
  readonly offset: number
  readonly bytes: number
  constructor(offset: number, bytes: number) {
    this.offset = offset
    this.bytes = bytes
  }
}

/** Where tensors come from. Memory belongs to it, never to a tensor. */
export interface Memory {
  readonly device: Device
  /** A new tensor, uninitialised in a workspace, zeros in a fresh arena. */
  empty(shape: readonly number[], dtype: DType): Tensor
}

/** A view: an address, a dtype, a shape, strides in elements. A plain value; it is never freed. */
export class Tensor {
  readonly address: number
  readonly dtype: DType
  readonly shape: readonly number[]
  readonly strides: readonly number[]
  readonly memory: Memory
  readonly block: Block

  constructor(address: number, dtype: DType, shape: readonly number[], strides: readonly number[], memory: Memory, block: Block) {
    this.address = address
    this.dtype = dtype
    this.shape = shape
    this.strides = strides
    this.memory = memory
    this.block = block
  }

  get device(): Device {
    return this.memory.device
  }
  get kernels(): Kernels {
    return this.memory.device.kernels
  }
  /** Number of elements. */
  get size(): number {
    return product(this.shape)
  }
  /** Rows of a matrix: the product of all dimensions but the last. */
  get rows(): number {
    return product(this.shape) / this.lastDim
  }
  get lastDim(): number {
    return this.shape[this.shape.length - 1] ?? 1
  }

  dim(i: number): number {
    const n = this.shape[i < 0 ? this.shape.length + i : i]
    if (n === undefined) throw tensorError('BAD_SHAPE', `a tensor of shape [${this.shape}] has no dimension ${i}`)
    return n
  }

  stride(i: number): number {
    return this.strides[i < 0 ? this.strides.length + i : i]!
  }

  isContiguous(): boolean {
    const want = contiguousStrides(this.shape)
    return this.shape.every((n, i) => n === 1 || this.strides[i] === want[i])
  }

  /** A new uninitialised tensor in the same memory as this one. */
  empty(shape: readonly number[], dtype: DType = this.dtype): Tensor {
    return this.memory.empty(shape, dtype)
  }

  zeros(shape: readonly number[], dtype: DType = this.dtype): Tensor {
    const t = this.empty(shape, dtype)
    this.kernels.fill(t, 0)
    return t
  }

  /** Elements [start, start + length) along `dim`. Shares memory. */
  narrow(dim: number, start: number, length: number): Tensor {
    const n = this.dim(dim)
    if (start < 0 || length < 0 || start + length > n)
      throw tensorError('BAD_SHAPE', `narrow(${dim}, ${start}, ${length}) of [${this.shape}]`)
    const d = dim < 0 ? this.shape.length + dim : dim
    const shape = this.shape.with(d, length)
    return new Tensor(
      this.address + start * this.strides[d]! * sizeOf(this.dtype),
      this.dtype,
      shape,
      this.strides,
      this.memory,
      this.block,
    )
  }

  /** The same elements under another shape; -1 in front keeps the leading dimension, whose stride may be anything. Shares memory. */
  view(...shape: number[]): Tensor {
    const rows = shape[0] === -1 ? this.dim(0) : shape[0]!
    const full = [rows, ...shape.slice(1)]
    if (product(full) !== this.size) throw tensorError('BAD_SHAPE', `view [${full}] of [${this.shape}]`)
    const strides = contiguousStrides(full)
    if (rows === this.shape[0]) strides[0] = this.strides[0]!
    else if (!this.isContiguous())
      throw tensorError('BAD_SHAPE', `view [${full}] of a strided [${this.shape}]: only the leading stride may be odd`)
    return new Tensor(this.address, this.dtype, full, strides, this.memory, this.block)
  }
}

export const product = (xs: readonly number[]): number => xs.reduce((a, b) => a * b, 1)

export function contiguousStrides(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length)
  for (let i = shape.length - 1, s = 1; i >= 0; s *= shape[i--]!) strides[i] = s
  return strides
}
