import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { AphroditeError, missingOps, type NativeCollectives, type NativeOps, type NativeTransfers } from '@aphrodite/tensor'
import type { NativeCapture } from './capture.ts'
import type { NativeNccl } from './communicator.ts'
import { kernelsCudaError } from './errors.ts'

/** What the addon has besides ops. Addresses and handles are numbers below 2^53. */
export interface Native extends NativeOps, NativeTransfers, NativeCapture, NativeCollectives, NativeNccl {
  raiseWith(error: typeof AphroditeError): void
  /** targets: what the kernels were compiled for, `80 89 90 90a ptx90`. */
  probe(): { devices: { name: string; memory: number; capability: number }[]; targets: string; reason?: string }
  createContext(device: number): number
  destroyContext(context: number): void
  /** sms: multiprocessors; capability: 80, 89, 90 …; sharedBytes: shared memory of a block at most; blas: cuBLASLt was found. */
  describeContext(context: number): { sms: number; capability: number; sharedBytes: number; blas: boolean }
  /** 0 when there is no memory. */
  allocate(context: number, bytes: number): number
  release(context: number, address: number): void
  memory(context: number): { total: number; free: number }
  synchronize(context: number): void
  /** A copy to the host is enqueued; the handle is for waitRead. */
  beginRead(context: number, address: number, dtype: number, elements: number): number
  /** Whether the copy is there, or comes within so many microseconds; the thread is busy meanwhile. */
  pollRead(context: number, read: number, microseconds: number): boolean
  /** Whether all that was enqueued is done, or is within so many microseconds; the thread is busy meanwhile. */
  pollStream(context: number, microseconds: number): boolean
  waitRead(context: number, read: number, dtype: number, dst: Float32Array | Int32Array, dstDtype: number): void
  readSeconds(context: number, address: number, bytes: number): number
  operationsPerSecond(context: number, dtype: number): number
}

const require = createRequire(import.meta.url)

/** The addon: built in this package, else the one of the package for this platform; or why there is none. */
export function findNative(): { readonly native: Native } | { readonly reason: string; readonly cause?: unknown } {
  const local = fileURLToPath(new URL('../prebuilt/kernels_cuda.node', import.meta.url))
  const platform = `@aphrodite/kernels-cuda-${process.platform}-${process.arch}`
  const here = existsSync(local)
  let native: Native
  try {
    native = require(here ? local : platform) as Native
  } catch (cause) {
    if (here) return { reason: `the CUDA kernels in ${local} cannot be loaded: ${messageOf(cause)}`, cause }
    return { reason: whyNotBuilt() ?? `the CUDA kernels are not built here, and the package ${platform} cannot be loaded`, cause }
  }
  const missing = missingOps(native)
  if (missing.length > 0) return { reason: `the CUDA addon has no ${missing.join(', ')}: it is older than this package, build it again` }
  native.raiseWith(AphroditeError)
  return { native }
}

/** What the build left in place of the addon: that there was no CUDA compiler, say. */
function whyNotBuilt(): string | undefined {
  try {
    return readFileSync(new URL('../prebuilt/not-built.txt', import.meta.url), 'utf8').trim()
  } catch {
    return undefined
  }
}
const messageOf = (error: unknown): string => (error instanceof Error ? error.message.split('\n')[0]! : String(error))

/** The addon. Throws NO_CUDA. */
export function loadNative(): Native {
  const found = findNative()
  if ('native' in found) return found.native
  throw kernelsCudaError('NO_CUDA', `${found.reason}. Build them with nvcc on the PATH, or use the CPU.`, { cause: found.cause })
}
