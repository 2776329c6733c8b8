import { findNative } from './native.ts'

/** What this machine has for CUDA, and why it has nothing when it has nothing. */
export interface CudaProbe {
  /** Whether this build holds CUDA kernels at all. */
  readonly built: boolean
  /** memory in bytes; capability 80, 89, 90 … */
  readonly devices: readonly { readonly name: string; readonly memory: number; readonly capability: number }[]
  readonly reason?: string
}

/** The CUDA devices of this machine. Never throws. */
export function probeCuda(): CudaProbe {
  const found = findNative()
  if (!('native' in found)) return { built: false, devices: [], reason: found.reason }
  return { built: true, ...found.native.probe() }
}
