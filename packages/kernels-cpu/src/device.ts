import {
  type Device,
  DTYPE_CODE,
  type DType,
  didYouMean,
  type FloatDType,
  type Graph,
  type HostArray,
  type HostData,
  isFloat,
  type Kernels,
  type MemoryInfo,
  nativeKernels,
  type PackedWeight,
  type PageShape,
  product,
  sizeOf,
  type Tensor,
  tensorError,
  type WeightFormat,
} from '@aphrodite/tensor'
import { kernelsCpuError } from './errors.ts'
import { memoryInfo } from './memory.ts'
import { loadNative, type Native } from './native.ts'
import { pack, packedBytes, pageBytes, unpack } from './packing.ts'
import { defaultThreads, orderCores, processorName } from './topology.ts'

/** Instruction sets in rising order; each has all that the ones before it have. */
export const ISAS = ['portable', 'avx2', 'avx512', 'avx512-bf16'] as const
export type Isa = (typeof ISAS)[number]

export interface CpuDeviceOptions {
  /** Threads that compute, the calling one included. 0: one a physical core that this process may use. */
  readonly threads?: number
  /** Ties the threads, the calling one too, to a core each until the device is closed. */
  readonly pin?: boolean
  /** The highest instruction set to use. 'auto': the best that this processor has. */
  readonly isa?: Isa | 'auto'
}

export const CPU_DEVICE_DEFAULTS = Object.freeze({ threads: 0, pin: true, isa: 'auto' } as const)

/**
 * A device that computes on this machine's processor. The JavaScript thread that creates it is the one that uses it and is
 * one of its threads: it is busy while an op runs. Throws BAD_OPTION, NO_NATIVE_ADDON.
 */
export function createCpuDevice(options: CpuDeviceOptions = {}): CpuDevice {
  for (const name of Object.keys(options)) {
    if (!Object.hasOwn(CPU_DEVICE_DEFAULTS, name))
      throw kernelsCpuError('BAD_OPTION', `createCpuDevice has no option "${name}".${didYouMean(name, Object.keys(CPU_DEVICE_DEFAULTS))}`)
  }
  const native = loadNative()
  const { threads: asked = CPU_DEVICE_DEFAULTS.threads, pin = CPU_DEVICE_DEFAULTS.pin, isa = CPU_DEVICE_DEFAULTS.isa } = options
  const best = native.bestIsa()
  const level = isa === 'auto' ? best : ISAS.indexOf(isa)
  if (level < 0) throw kernelsCpuError('BAD_OPTION', `isa is "${isa}"; there are auto, ${ISAS.join(', ')}.${didYouMean(String(isa), ISAS)}`)
  if (level > best) throw kernelsCpuError('BAD_OPTION', `isa is "${isa}", but this processor has only ${ISAS[best]}. Use "auto".`)
  const { cores, physical } = orderCores(native.allowedCores())
  const threads = asked === 0 ? defaultThreads(physical) : asked
  if (!Number.isInteger(threads) || threads < 1 || threads > 1024)
    throw kernelsCpuError('BAD_OPTION', `threads is ${asked}; it should be 1 … 1024, or 0 for one a physical core.`)
  // More threads than cores take turns: then nobody may wait by spinning, and a core each is not to be had.
  const enough = threads <= cores.length
  const pinned = pin && enough && cores.every((core) => core < 1024) ? cores.slice(0, threads) : undefined
  return new CpuDevice(native, native.createContext(threads, level, enough, pinned), ISAS[level]!, threads)
}

/** What `createCpuDevice` makes. */
export class CpuDevice implements Device {
  readonly kind = 'cpu'
  readonly description: string
  readonly kernels: Kernels
  readonly isa: Isa
  readonly threads: number
  readonly #native: Native
  readonly #context: number
  #closed = false

  constructor(native: Native, context: number, isa: Isa, threads: number) {
    this.#native = native
    this.#context = context
    this.isa = isa
    this.threads = threads
    this.description = `cpu (${processorName()}, ${isa}, ${threads} ${threads === 1 ? 'thread' : 'threads'})`
    this.kernels = nativeKernels(native, context)
  }

  /** bf16 where the processor multiplies it; halves are converted on the way, which costs little but wins nothing. */
  supports = (dtype: DType): boolean => dtype === 'f32' || (dtype === 'bf16' && this.isa === 'avx512-bf16')

  allocate(bytes: number): number {
    // The system would hand out addresses without memory behind them, and end the process when they are used.
    const free = bytes < 1 << 20 ? Number.POSITIVE_INFINITY : memoryInfo().free
    const address = bytes > free ? 0 : this.#native.allocate(this.#context, bytes)
    if (address === 0)
      throw tensorError(
        'OUT_OF_MEMORY',
        `${bytes} bytes are wanted and ${Math.min(free, memoryInfo().free)} are free. Use a smaller model, context or cache.`,
      )
    return address
  }
  release(address: number): void {
    this.#native.release(this.#context, address)
  }
  memory(): MemoryInfo {
    return memoryInfo()
  }

  upload(dst: Tensor, src: HostArray | HostData): void {
    const { address, dtype, shape, strides } = dst
    const code = DTYPE_CODE[dtype]
    if (ArrayBuffer.isView(src)) {
      const from = hostDType(src, dtype)
      if (product(shape) !== src.length)
        throw kernelsCpuError('BAD_ARGUMENT', `upload: src has ${src.length} elements, dst is [${shape}]. Give as many.`)
      if (dst.isContiguous()) this.#native.upload(this.#context, address, code, src, DTYPE_CODE[from], 1, src.length, 1, 1)
      else this.#native.upload(this.#context, address, code, src, DTYPE_CODE[from], shape.length, ...dims(shape, strides, rowMajor(shape)))
      return
    }
    if (src.shape.length !== shape.length || src.shape.some((n, i) => n !== shape[i]))
      throw kernelsCpuError('BAD_ARGUMENT', `upload: src is [${src.shape}], dst is [${shape}]. They should be equal.`)
    const from = DTYPE_CODE[src.dtype]
    this.#native.upload(this.#context, address, code, src.bytes, from, shape.length, ...dims(shape, strides, src.strides))
  }

  download(src: Tensor): Float32Array | Int32Array | Uint8Array {
    const { address, dtype, shape, strides } = src
    const size = src.size
    if (!isFloat(dtype) && dtype !== 'i32' && dtype !== 'u8')
      throw kernelsCpuError('BAD_ARGUMENT', `download: src is ${dtype}; floats, i32 and u8 can be downloaded.`)
    const host = isFloat(dtype) ? new Float32Array(size) : dtype === 'i32' ? new Int32Array(size) : new Uint8Array(size)
    const code = isFloat(dtype) ? DTYPE_CODE.f32 : DTYPE_CODE[dtype]
    this.#native.download(this.#context, address, DTYPE_CODE[dtype], host, code, shape.length, ...dims(shape, strides, rowMajor(shape)))
    return host
  }

  packedBytes(format: WeightFormat, outFeatures: number, inFeatures: number): number {
    return packedBytes(format, outFeatures, inFeatures)
  }
  pack(dst: PackedWeight, src: HostArray, row: number, column: number): void {
    pack(this.#native, this.#context, dst, src, row, column)
  }
  unpack(src: PackedWeight): Float32Array {
    return unpack(this.#native, this.#context, src)
  }

  pageBytes(shape: PageShape): number {
    return pageBytes(shape)
  }

  /** See measureReadBandwidth and measurePeak. */
  readSeconds(address: number, bytes: number): number {
    return this.#native.readSeconds(this.#context, address, bytes)
  }
  operationsPerSecond(dtype: FloatDType): number {
    return this.#native.operationsPerSecond(this.#context, DTYPE_CODE[dtype])
  }

  capture(enqueue: () => void): Graph {
    const native = this.#native
    const context = this.#context
    native.beginRecording(context)
    let done = 0
    try {
      enqueue()
      done = 1
    } finally {
      // An unfinished recording is thrown away, and the error goes on.
      if (done === 0) native.endRecording(context, 0)
    }
    const recording = native.endRecording(context, 1)
    return { replay: () => native.replay(context, recording), release: () => native.releaseRecording(context, recording) }
  }

  /** Ops have been done when they return. */
  async synchronize(): Promise<void> {}

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#native.destroyContext(this.#context)
  }
}

/** What a typed array holds: the tensor's own type where it fits the array's element size, as there is no array of bf16. */
function hostDType(data: HostData, dst: DType): DType {
  if (data instanceof Float32Array) return 'f32'
  if (data instanceof Int32Array) return 'i32'
  if (data instanceof Int8Array) return 'i8'
  if (data instanceof Uint16Array) return sizeOf(dst) === 2 ? dst : 'u16'
  return sizeOf(dst) === 1 ? dst : 'u8'
}

const rowMajor = (shape: readonly number[]): number[] => {
  const strides = new Array<number>(shape.length)
  for (let i = shape.length - 1, s = 1; i >= 0; s *= shape[i--]!) strides[i] = s
  return strides
}

/** Extent, device stride and host stride of each dimension. */
function dims(shape: readonly number[], device: readonly number[], host: readonly number[]): number[] {
  return shape.flatMap((n, i) => [n, device[i]!, host[i]!])
}
