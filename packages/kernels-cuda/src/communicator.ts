import { COLLECTIVE_TIMEOUT_MS, type Communicator, didYouMean, type Tensor, tensorError } from '@aphrodite/tensor'
import type { CudaDevice } from './device.ts'
import { kernelsCudaError } from './errors.ts'
import { loadNative, type Native } from './native.ts'

export interface NativeNccl {
  ncclId(): Uint8Array
  /** Starts to meet the other ranks: a handle, which names it in the whole process. */
  createNcclCommunicator(context: number, rank: number, size: number, timeoutMs: number, id: Uint8Array): number
  /** Whether all ranks have met. Throws RANK_FAILED. */
  communicatorReady(context: number, communicator: number): boolean
  /** Enqueues exchanges that make the connections which graphs use. */
  connectRanks(context: number, communicator: number): void
  /** Throws RANK_FAILED when a rank has failed. */
  checkCommunicator(context: number, communicator: number): void
  /** On any thread; false when there is no such communicator. */
  abortCommunicator(communicator: number, reason: string): boolean
  closeCommunicator(communicator: number): void
}

export interface NcclCommunicatorOptions {
  readonly rank: number
  readonly size: number
  /** What `createNcclId` made on one rank, on all of them. */
  readonly id: Uint8Array
  /** How long a step, or the first meeting, waits for another rank. */
  readonly timeoutMs?: number
  /** Ends the first meeting with RANK_FAILED and the signal's reason. */
  readonly signal?: AbortSignal
}

const OPTIONS: readonly string[] = ['rank', 'size', 'id', 'timeoutMs', 'signal'] satisfies (keyof NcclCommunicatorOptions)[]
const ID_BYTES = 128

/** What the ranks of one group start from: made by one of them, given to all, used once. Throws NO_CUDA, NO_NCCL. */
export const createNcclId = (): Uint8Array => Uint8Array.from(loadNative().ncclId())

/**
 * Meets the other ranks, each with a GPU of its own, through NCCL (libnccl.so.2, found when this is called); resolves when all
 * are connected. Collectives are enqueued like ops, and captured by `Device.capture`. Sums are made in the tensor's dtype, in
 * NCCL's order, with the same bits on every rank. A failed rank is told by what waits for the device. Rejects with RANK_FAILED
 * when a rank does not come within the time limit. Throws NO_NCCL, BAD_CUDA_OPTION.
 */
export async function createNcclCommunicator(device: CudaDevice, options: NcclCommunicatorOptions): Promise<NcclCommunicator> {
  const { rank, size, id, signal } = options
  const timeoutMs = options.timeoutMs ?? COLLECTIVE_TIMEOUT_MS
  check(options, timeoutMs)
  const native = loadNative()
  const context = device.context
  const handle = native.createNcclCommunicator(context, rank, size, Math.ceil(timeoutMs), id)
  const began = performance.now()
  const until = async (done: () => boolean) => {
    for (let pause = 1; !done(); pause = Math.min(pause * 2, 20)) {
      if (signal?.aborted) native.abortCommunicator(handle, String(signal.reason?.message ?? signal.reason))
      if (performance.now() - began > timeoutMs)
        native.abortCommunicator(handle, `not all of ${size} ranks came to rank ${rank} within ${timeoutMs / 1000} s`)
      await new Promise<void>((resolve) => setTimeout(resolve, pause))
    }
  }
  try {
    await until(() => native.communicatorReady(context, handle))
    native.connectRanks(context, handle)
    await until(() => native.communicatorReady(context, handle) && native.pollStream(context, 0))
  } catch (e) {
    native.closeCommunicator(handle)
    throw e
  }
  const communicator = new NcclCommunicator(native, device, handle, { rank, size, timeoutMs })
  device.attach(communicator)
  return communicator
}

/**
 * `Communicator.abort` by handle, from any thread of the process. False when there is none of this handle any more. Handles of
 * the CPU's communicators are others.
 */
export const abortCommunicator = (handle: number, reason: string): boolean => loadNative().abortCommunicator(handle, reason)

/** What `createNcclCommunicator` makes. */
export class NcclCommunicator implements Communicator {
  readonly rank: number
  readonly size: number
  readonly timeoutMs: number
  readonly handle: number
  readonly #native: Native
  readonly #device: CudaDevice

  constructor(
    native: Native,
    device: CudaDevice,
    handle: number,
    { rank, size, timeoutMs }: Required<Omit<NcclCommunicatorOptions, 'id' | 'signal'>>,
  ) {
    this.#native = native
    this.#device = device
    this.handle = handle
    this.rank = rank
    this.size = size
    this.timeoutMs = timeoutMs
  }

  allReduce(x: Tensor): void {
    const launch = () => this.#device.collectives.allReduce(this.handle, x)
    this.#device.collective({ name: 'allReduce', reads: [x], writes: [x], launch })
  }
  allGather(out: Tensor, x: Tensor): void {
    if (x.shape.length > 2 || out.shape.length > 2)
      throw tensorError('BAD_SHAPE', `allGather: out is [${out.shape}] and x [${x.shape}]; they should have two dimensions at most`)
    const launch = () => this.#device.collectives.allGather(this.handle, out, x)
    this.#device.collective({ name: 'allGather', reads: [x], writes: [out], launch })
  }

  /** Throws RANK_FAILED when a rank has failed, or a step waits for longer than the time limit. */
  check(waitedMs = 0): void {
    if (waitedMs > this.timeoutMs)
      this.abort(
        `rank ${this.rank} has waited for ${this.timeoutMs / 1000} s for a step that exchanges with ${this.size - 1} other ranks: one of them did not come`,
      )
    this.#native.checkCommunicator(this.#device.context, this.handle)
  }
  abort(reason: string): void {
    this.#native.abortCommunicator(this.handle, reason)
  }
  close(): void {
    this.#device.detach(this)
    this.#native.closeCommunicator(this.handle)
  }
}

function check(options: NcclCommunicatorOptions, timeoutMs: number): void {
  const fail = (what: string): never => {
    throw kernelsCudaError('BAD_CUDA_OPTION', `createNcclCommunicator: ${what}`)
  }
  for (const name of Object.keys(options)) if (!OPTIONS.includes(name)) fail(`there is no option "${name}".${didYouMean(name, OPTIONS)}`)
  const { rank, size, id } = options
  if (!Number.isInteger(size) || size < 1 || size > 4096) fail(`size is ${size}; it should be 1 … 4096.`)
  if (!Number.isInteger(rank) || rank < 0 || rank >= size) fail(`rank is ${rank}; it should be 0 … ${size - 1}.`)
  if (id.length !== ID_BYTES) fail(`id has ${id.length} bytes; it should be what createNcclId made, ${ID_BYTES} bytes.`)
  if (!(timeoutMs >= 1 && timeoutMs <= 86_400_000)) fail(`timeoutMs is ${timeoutMs}; it should be 1 … 86400000.`)
}
