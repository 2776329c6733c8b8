/** What this machine has for CUDA, and why it has nothing when it has nothing. */
export interface CudaProbe {
  /** Whether this build holds CUDA kernels at all. */
  readonly built: boolean
  readonly devices: readonly { readonly name: string; readonly memory: number }[]
  readonly reason?: string
}

/** This version holds no CUDA kernels yet: no devices, and the reason. */
export function probeCuda(): CudaProbe {
  return { built: false, devices: [], reason: 'this version of @aphrodite/kernels-cuda holds no kernels yet' }
}
