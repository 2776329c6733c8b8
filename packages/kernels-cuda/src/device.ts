import {
  type CollectiveOps,
  collectiveOps,
  type Device,
  DTYPE_CODE,
  type DType,
  didYouMean,
  download,
  type Graph,
  type HostArray,
  type HostData,
  isFloat,
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
import { StepCapture } from './capture.ts'
import type { NcclCommunicator } from './communicator.ts'
import { kernelsCudaError } from './errors.ts'
import type { FusedFits } from './fused-kernels.ts'
import type { InterpreterFits } from './interpreter.ts'
import { packedBytes, pageBytes } from './layouts.ts'
import { loadNative, type Native } from './native.ts'
import { probeCuda } from './probe.ts'
import type { Collective } from './step-list.ts'

/** How long a wait for the device keeps the JavaScript thread from anything else. */
const LOOK_MICROSECONDS = 1000

export interface CudaDeviceOptions {
  /** Which of the machine's GPUs, as the driver numbers them. */
  readonly index?: number
}

export const CUDA_DEVICE_DEFAULTS = Object.freeze({ index: 0 } as const)

/**
 * A device that computes on an NVIDIA GPU. Ops are enqueued and return at once; they are done in order. The JavaScript thread
 * that creates it is the one that uses it. Throws NO_CUDA, BAD_CUDA_OPTION, CUDA_FAILED.
 */
export function createCudaDevice(options: CudaDeviceOptions = {}): CudaDevice {
  for (const name of Object.keys(options)) {
    if (!Object.hasOwn(CUDA_DEVICE_DEFAULTS, name))
      throw kernelsCudaError(
        'BAD_CUDA_OPTION',
        `createCudaDevice has no option "${name}".${didYouMean(name, Object.keys(CUDA_DEVICE_DEFAULTS))}`,
      )
  }
  const { index = CUDA_DEVICE_DEFAULTS.index } = options
  const native = loadNative()
  const { devices, driver, reason } = probeCuda()
  if (devices.length === 0) throw kernelsCudaError('NO_CUDA', `there is no CUDA device: ${reason ?? 'none was found'}. Use the CPU.`)
  const found = devices[index]
  if (!found) throw kernelsCudaError('BAD_CUDA_OPTION', `there is no GPU ${index}; this machine has ${devices.length}, numbered from 0.`)
  if (found.reason !== undefined) throw kernelsCudaError('NO_CUDA', `${found.reason}. Use another GPU, or the CPU.`)
  const card = driver === undefined ? found.name : `${found.name}, driver ${driver}`
  return new CudaDevice(native, native.createContext(index), index, card)
}

/** What `createCudaDevice` makes. */
export class CudaDevice implements Device {
  readonly kind = 'cuda'
  readonly asynchronous = true
  readonly description: string
  readonly kernels: Kernels
  /** What communicators do on this device. */
  readonly collectives: CollectiveOps
  /** Which fused kernels it has for a captured step. */
  readonly fits: FusedFits
  /** Which of these, for one sequence, several of which it can do in one kernel. */
  readonly interprets: InterpreterFits
  readonly index: number
  /** Multiprocessors, compute capability (90: 9.0), whether cuBLASLt was found. */
  readonly sms: number
  readonly capability: number
  readonly blas: boolean
  readonly #native: Native
  readonly #context: number
  readonly #steps: StepCapture
  readonly #communicators = new Set<NcclCommunicator>()
  #closed = false

  /** `card`: its name and driver, for people. */
  constructor(native: Native, context: number, index: number, card: string) {
    this.#native = native
    this.#context = context
    this.index = index
    const { sms, capability, blas } = native.describeContext(context)
    this.sms = sms
    this.capability = capability
    this.blas = blas
    this.description = `cuda:${index} (${card}, ${blas ? 'cuBLASLt' : 'own GEMM, no cuBLASLt found'})`
    this.#steps = new StepCapture(native, context, nativeKernels(native, context), this)
    this.kernels = this.#steps.kernels
    this.collectives = collectiveOps(native, context)
    this.fits = this.#steps.fits
    this.interprets = this.#steps.interprets
  }

  supports = (dtype: DType): boolean => dtype === 'f32' || dtype === 'bf16' || dtype === 'f16'

  allocate(bytes: number): number {
    const address = this.#native.allocate(this.#context, bytes)
    if (address === 0) {
      const { free, total } = this.memory()
      throw tensorError(
        'OUT_OF_MEMORY',
        `${bytes} bytes of GPU memory are wanted, ${free} of ${total} are free. Use a smaller model, context or cache, or end what else runs on GPU ${this.index}.`,
      )
    }
    return address
  }
  release(address: number): void {
    if (!this.#closed) this.#native.release(this.#context, address)
  }
  memory(): MemoryInfo {
    return this.#native.memory(this.#context)
  }

  upload(dst: Tensor, src: HostArray | HostData): void {
    this.#steps.requireIdle('upload')
    upload(this.#native, this.#context, dst, src)
  }
  download(src: Tensor): Float32Array | Int32Array | Uint8Array {
    this.#steps.requireIdle('download')
    this.#settle()
    return download(this.#native, this.#context, src)
  }

  read(src: Tensor): Reading {
    const { address, dtype, size } = src
    if (!(isFloat(dtype) || dtype === 'i32') || !src.isContiguous())
      throw tensorError('BAD_ARGUMENT', `read: src is ${dtype} [${src.shape}]; it should be floats or i32, and contiguous.`)
    this.#steps.requireIdle('read')
    const native = this.#native
    const context = this.#context
    const read = native.beginRead(context, address, DTYPE_CODE[dtype], size)
    return {
      wait: async () => {
        // A thread that looks all the time is not late; now and then it lets requests and aborts in.
        await this.#waitFor(() => native.pollRead(context, read, LOOK_MICROSECONDS))
        const host = isFloat(dtype) ? new Float32Array(size) : new Int32Array(size)
        native.waitRead(context, read, DTYPE_CODE[dtype], host, isFloat(dtype) ? DTYPE_CODE.f32 : DTYPE_CODE.i32)
        return host
      },
    }
  }

  packedBytes(format: WeightFormat, outFeatures: number, inFeatures: number): number {
    return packedBytes(format, outFeatures, inFeatures)
  }
  pack(dst: PackedWeight, src: HostArray, row: number, column: number): void {
    this.#steps.requireIdle('pack')
    packWeight(this.#native, this.#context, dst, src, row, column)
  }
  unpack(src: PackedWeight): Float32Array {
    this.#steps.requireIdle('unpack')
    this.#settle()
    return unpackWeight(this.#native, this.#context, src)
  }

  pageBytes(shape: PageShape): number {
    return pageBytes(shape)
  }

  /** Seconds that reading this memory takes, and multiply-adds times two a second: what bandwidth and peak are measured with. */
  readSeconds(address: number, bytes: number): number {
    return this.#native.readSeconds(this.#context, address, bytes)
  }
  operationsPerSecond(dtype: DType): number {
    return this.#native.operationsPerSecond(this.#context, DTYPE_CODE[dtype])
  }

  capture(enqueue: () => void): Graph {
    const { replay, release } = this.#steps.capture(enqueue)
    return {
      release,
      replay: () => {
        this.#watch()
        replay()
      },
    }
  }

  async synchronize(): Promise<void> {
    if (this.#communicators.size > 0) await this.#waitFor(() => this.#native.pollStream(this.#context, LOOK_MICROSECONDS))
    this.#native.synchronize(this.#context)
  }

  /** Its handle in the addon. */
  get context(): number {
    return this.#context
  }
  /** What ranks exchange: enqueued, or a part of the step that is being captured. */
  collective(work: Collective): void {
    this.#steps.collective(work)
  }
  /** From now on whatever waits for the device looks whether the communicator's ranks have failed. */
  attach(communicator: NcclCommunicator): void {
    this.#communicators.add(communicator)
  }
  detach(communicator: NcclCommunicator): void {
    this.#communicators.delete(communicator)
  }

  async #waitFor(done: () => boolean): Promise<void> {
    const began = performance.now()
    while (!done()) {
      this.#watch(began)
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
    this.#watch()
  }
  /** Before a wait that nothing can interrupt: for a rank that does not come it would last for ever. */
  #settle(): void {
    if (this.#communicators.size === 0) return
    const began = performance.now()
    while (!this.#native.pollStream(this.#context, LOOK_MICROSECONDS)) this.#watch(began)
    this.#watch()
  }
  /** Throws RANK_FAILED: a step that a failed rank had a part in ends, but what it computed is nothing. */
  #watch(began = performance.now()): void {
    for (const communicator of this.#communicators) communicator.check(performance.now() - began)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#native.destroyContext(this.#context)
  }
}
