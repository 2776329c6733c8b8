import {
  type CollectiveOps,
  collectiveOps,
  type Device,
  DTYPE_CODE,
  type DType,
  didYouMean,
  download,
  type FloatDType,
  type Graph,
  type HostArray,
  type HostData,
  type Kernels,
  type MemoryInfo,
  nativeKernels,
  type PackedWeight,
  type PageShape,
  packWeight,
  type Reading,
  type Tensor,
  tensorError,
  unpackWeight,
  upload,
  type WeightFormat,
} from '@aphrodite/tensor'
import { kernelsCpuError } from './errors.ts'
import { memoryInfo } from './memory.ts'
import { loadNative, type Native } from './native.ts'
import { packedBytes, pageBytes } from './packing.ts'
import { type CoreShare, defaultThreads, orderCores, partOfCores, processorName } from './topology.ts'

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
  /** Of several processes that compute together and may use the same cores: each takes a part of its own. */
  readonly share?: CoreShare
}

export const CPU_DEVICE_DEFAULTS = Object.freeze({ threads: 0, pin: true, isa: 'auto', share: Object.freeze({ index: 0, of: 1 }) } as const)

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
  const { share = CPU_DEVICE_DEFAULTS.share } = options
  const { cores, physical } = partOfCores(orderCores(native.allowedCores()), share)
  const threads = asked === 0 ? Math.min(physical, Math.max(1, Math.floor(defaultThreads(physical * share.of) / share.of))) : asked
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
  readonly asynchronous = false
  readonly description: string
  readonly kernels: Kernels
  /** What communicators do on this device. */
  readonly collectives: CollectiveOps
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
    this.collectives = collectiveOps(native, context)
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
    upload(this.#native, this.#context, dst, src)
  }
  download(src: Tensor): Float32Array | Int32Array | Uint8Array {
    return download(this.#native, this.#context, src)
  }

  read(src: Tensor): Reading {
    const host = this.download(src)
    if (host instanceof Uint8Array) throw tensorError('BAD_ARGUMENT', `read: src is ${src.dtype}; floats and i32 can be read.`)
    return { wait: () => Promise.resolve(host) }
  }

  packedBytes(format: WeightFormat, outFeatures: number, inFeatures: number): number {
    return packedBytes(format, outFeatures, inFeatures)
  }
  pack(dst: PackedWeight, src: HostArray, row: number, column: number): void {
    packWeight(this.#native, this.#context, dst, src, row, column)
  }
  unpack(src: PackedWeight): Float32Array {
    return unpackWeight(this.#native, this.#context, src)
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
