import type { PageShape } from './cache.ts'
import type { DType } from './dtype.ts'
import type { Kernels } from './kernels.ts'
import type { Tensor } from './tensor.ts'
import type { PackedWeight, WeightFormat } from './weight.ts'

/** Host memory seen as an array: what a checkpoint hands to a device. Strides are in elements; `bytes` starts at element 0. */
export interface HostArray {
  readonly bytes: Uint8Array
  readonly dtype: DType
  readonly shape: readonly number[]
  readonly strides: readonly number[]
}

export type HostData = Float32Array | Int32Array | Uint16Array | Uint8Array | Int8Array

/** Memory in bytes. `free` is what an allocation could still get without disturbing others. */
export interface MemoryInfo {
  readonly total: number
  readonly free: number
}

/** Ops that were captured once and can be done again in one call: the same ops on the same addresses, whatever is there by then. */
export interface Graph {
  replay(): void
  /** The device forgets it. */
  release(): void
}

/** A copy of a tensor that is on its way to the host. */
export interface Reading {
  /**
   * Resolves with the elements in row-major order once this copy is there, without waiting for what was enqueued after it:
   * floats as Float32Array (converted), i32 as Int32Array. The array is the caller's. Called once. Rejects when the copy, or
   * anything before it, has failed.
   */
  wait(): Promise<Int32Array | Float32Array>
}

/** A place where tensors live and kernels run. Every backend package exports a function that makes one. */
export interface Device {
  readonly kind: 'cpu' | 'cuda' | 'reference'
  /** For people: `cpu (AMD EPYC, avx512-bf16, 2 threads)`. */
  readonly description: string
  readonly kernels: Kernels
  /** What `dtype: 'auto'` may choose without being slow here. */
  readonly supports: (dtype: DType) => boolean
  /**
   * Whether calls return before their work is done, so that enqueueing the next step while one runs hides the host's part of it.
   * Uploads, ops, replays and reads are done in the order of their calls either way.
   */
  readonly asynchronous: boolean

  /** Zeroed memory; the address is a multiple of ALIGNMENT. Throws OUT_OF_MEMORY. */
  allocate(bytes: number): number
  release(address: number): void
  memory(): MemoryInfo

  /**
   * Copies host elements into dst (strided, same shape), converting between float types. Integers keep their type. In its turn, like
   * an op; src is the caller's again when the call returns.
   */
  upload(dst: Tensor, src: HostArray | HostData): void
  /** A copy of src in row-major order: floats as Float32Array (converted), i32 as Int32Array, u8 as Uint8Array. Waits for the device. */
  download(src: Tensor): Float32Array | Int32Array | Uint8Array
  /** Enqueues a copy of src (contiguous; floats or i32) to the host. What is enqueued afterwards may overwrite src. */
  read(src: Tensor): Reading

  /** Bytes of a packed [outFeatures, inFeatures] matrix. */
  packedBytes(format: WeightFormat, outFeatures: number, inFeatures: number): number
  /**
   * Writes src [rows, columns] into rows [row, …) and columns [column, …) of dst, converting floats to dst.format.
   * Any place and size is right, in any order; whole rows are fast.
   */
  pack(dst: PackedWeight, src: HostArray, row: number, column: number): void
  /** The inverse of pack, for checks and for what moves weights about: row-major f32 [outFeatures, inFeatures]. */
  unpack(src: PackedWeight): Float32Array

  /** Bytes of one page of one layer, a multiple of 64. */
  pageBytes(shape: PageShape): number

  /**
   * Writes down what `enqueue` calls of the kernels, and does none of it: the graph does, as often as it is replayed. Moving
   * data to or from the host inside is an error. Absent where a device does not capture.
   */
  capture?(enqueue: () => void): Graph

  /** Resolves when everything that was enqueued has been done. The only thing in a step that waits. */
  synchronize(): Promise<void>
  /** Stops threads and frees what was not released. */
  close(): void
}

/** A tensor of a checkpoint. */
export interface NamedArray {
  readonly name: string
  readonly array: HostArray
}
