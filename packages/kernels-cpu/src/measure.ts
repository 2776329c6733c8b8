import type { FloatDType } from '@aphrodite/tensor'
import type { CpuDevice } from './device.ts'

const median = (xs: number[]): number => xs.toSorted((a, b) => a - b)[xs.length >> 1]!

/**
 * Bytes a second at which the device's threads together read this memory of it: the median of some passes. It differs from
 * buffer to buffer (pages, memory channels), so measure over the weights that a speed is compared with. At least 64 KB.
 */
export function measureReadBandwidth(device: CpuDevice, address: number, bytes: number, passes = 5): number {
  return bytes / median(Array.from({ length: passes }, () => device.readSeconds(address, bytes)))
}

/**
 * Operations (a multiplication and an addition count two) a second that the device's threads together do in registers: what no
 * kernel can exceed. bf16 is multiplied natively on avx512-bf16 only; elsewhere, and for f16, it is f32's number.
 */
export function measurePeak(device: CpuDevice, dtype: FloatDType, passes = 5): number {
  return median(Array.from({ length: passes }, () => device.operationsPerSecond(dtype)))
}
