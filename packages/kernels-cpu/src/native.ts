import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { AphroditeError, missingOps, type NativeCollectives, type NativeOps, type NativeTransfers } from '@aphrodite/tensor'
import { kernelsCpuError } from './errors.ts'

/** What the addon has besides ops. Addresses are numbers below 2^53. */
export interface Native extends NativeOps, NativeTransfers, NativeCollectives {
  /** `cores`: one for each thread, which ties it there; otherwise threads run where the system puts them. */
  createContext(threads: number, isa: number, spin: boolean, cores?: readonly number[]): number
  destroyContext(context: number): void
  bestIsa(): number
  /** Cores that this process was allowed to use when the addon was loaded. */
  allowedCores(): number[]
  raiseWith(error: typeof AphroditeError): void
  /** 0 when there is no memory. */
  allocate(context: number, bytes: number): number
  release(context: number, address: number): void
  readSeconds(context: number, address: number, bytes: number): number
  operationsPerSecond(context: number, dtype: number): number
  /** Ops are kept instead of made from here … */
  beginRecording(context: number): void
  /** … to here. keep 1: the recording's handle; 0: it is thrown away. */
  endRecording(context: number, keep: number): number
  replay(context: number, recording: number): void
  releaseRecording(context: number, recording: number): void
  /** Starts to meet the other ranks: a handle, which names it in the whole process. threads: of this rank; cores: that it may use. */
  createSharedCommunicator(options: {
    readonly rank: number
    readonly size: number
    readonly timeoutMs: number
    readonly name: string
    readonly threads: number
    readonly cores: readonly number[]
  }): number
  /** The same; the listener is the communicator's from now on. hosts and ports: of every rank. */
  createTcpCommunicator(options: {
    readonly rank: number
    readonly size: number
    readonly timeoutMs: number
    readonly listener: number
    readonly hosts: readonly string[]
    readonly ports: readonly string[]
    readonly secret: string
  }): number
  /** Whether all ranks have met, on the thread that will use it. Throws RANK_FAILED. */
  communicatorReady(communicator: number): boolean
  /** On any thread; false when there is no such communicator. */
  abortCommunicator(communicator: number, reason: string): boolean
  closeCommunicator(communicator: number): void
  listen(host: string, port: string): { listener: number; port: number }
  closeListener(listener: number): void
}

const require = createRequire(import.meta.url)

/** The addon: built in this package, else the one of the package for this platform. */
export function loadNative(): Native {
  const local = fileURLToPath(new URL('../prebuilt/kernels_cpu.node', import.meta.url))
  const platform = `@aphrodite/kernels-cpu-${process.platform}-${process.arch}`
  let native: Native
  try {
    native = require(existsSync(local) ? local : platform) as Native
  } catch (cause) {
    throw kernelsCpuError(
      'NO_NATIVE_ADDON',
      `the CPU kernels cannot be loaded: neither ${local} nor the package ${platform} works here. ` +
        'Build them with "pnpm --filter @aphrodite/kernels-cpu run build:native" (needs cmake and a C++17 compiler).',
      { cause },
    )
  }
  const missing = missingOps(native)
  if (missing.length > 0)
    throw kernelsCpuError(
      'NO_NATIVE_ADDON',
      `the native addon has no ${missing.join(', ')}: it is older than this package. Build it again.`,
    )
  native.raiseWith(AphroditeError)
  return native
}
