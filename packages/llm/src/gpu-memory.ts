import { AphroditeError, type Device } from '@aphrodite/tensor'

type Measured = Pick<Device, 'memory' | 'description'>

/** The weights' bytes, if the GPU has them free. Throws OUT_OF_MEMORY. */
export function fitting(bytes: number, device: Measured): number {
  const { total, free } = device.memory()
  if (bytes <= free) return bytes
  const gigabytes = (n: number): string => (n / 1e9).toFixed(1)
  throw new AphroditeError(
    'OUT_OF_MEMORY',
    `the weights take ${gigabytes(bytes)} GB of GPU memory; ${device.description} has ${gigabytes(free)} of ${gigabytes(total)} GB free. ` +
      'Use a smaller model, a 16-bit dtype, another GPU (--device cuda:1), or end what else runs on this one.',
  )
}

/** Left alone on a GPU for captured steps, and for kernels, which the driver loads when they are first used. */
export const GPU_RESERVE = 512 << 20

/**
 * What of a GPU's free memory workspace and cache may take once the weights are there, so that all of them take `utilization` of
 * the whole: (0, 1]. Nothing that others hold is counted on, and GPU_RESERVE stays free.
 */
export function shareOfFree(device: Pick<Device, 'memory'>, utilization: number, weightBytes: number): number {
  const { total, free } = device.memory()
  const bytes = Math.min(total * utilization - weightBytes, free - GPU_RESERVE)
  return Math.max(bytes, 1) / Math.max(free, 1)
}
