import { measurePeak, measureReadBandwidth } from '@aphrodite/kernels-cpu'
import type { CudaDevice } from '@aphrodite/kernels-cuda'
import { dummyTensors } from '@aphrodite/loader'
import { Arena, type FloatDType, sizeOf } from '@aphrodite/tensor'
import type { OpenedDevice } from './devices.ts'
import type { DeviceLimits } from './types.ts'

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!

/** What the device can do at most, measured now: reading memory, and multiplying in `dtype`. */
export async function measureLimits(device: OpenedDevice, weights: Arena, dtype: FloatDType): Promise<DeviceLimits> {
  if (device.kind === 'cuda') return { readBytesPerSecond: cudaRead(device), flops: await cudaProduct(device, dtype) }
  // Slab by slab, since the host's memory differs in speed from place to place.
  const slabs = weights.slabs.filter(({ bytes }) => bytes >= 1 << 16)
  const seconds = slabs.reduce((sum, { address, bytes }) => sum + bytes / measureReadBandwidth(device, address, bytes), 0)
  return { readBytesPerSecond: slabs.reduce((sum, { bytes }) => sum + bytes, 0) / seconds, flops: measurePeak(device, dtype) }
}

/** Over a stretch that is many times the size of any cache of the card. */
function cudaRead(device: CudaDevice, passes = 9): number {
  const bytes = Math.min(2 ** 30, 2 ** Math.floor(Math.log2(device.memory().free / 2)))
  const address = device.allocate(bytes)
  try {
    return bytes / median(Array.from({ length: passes }, () => device.readSeconds(address, bytes)))
  } finally {
    device.release(address)
  }
}

/**
 * The linear layer's own kernel at 8192 × 8192 × 8192: what a prompt could reach if it were one great product. Numbers are random,
 * since a card clocks higher over zeros.
 */
async function cudaProduct(device: CudaDevice, dtype: FloatDType, runs = 7): Promise<number> {
  let n = 8192
  while (n > 1024 && 3 * n * n * sizeOf(dtype) > device.memory().free / 2) n /= 2
  const arena = new Arena(device, 3 * n * n * sizeOf(dtype))
  try {
    const x = arena.empty([n, n], dtype)
    const weight = arena.packed(n, n, dtype)
    const out = arena.empty([n, n], dtype)
    for (const { array } of dummyTensors([{ name: 'x', shape: [n, n] }], dtype, 1)) {
      device.upload(x, array)
      device.pack(weight, array, 0, 0)
    }
    const times: number[] = []
    for (let run = -2; run < runs; run++) {
      await device.synchronize()
      const started = performance.now()
      for (let i = 0; i < 4; i++) device.kernels.linear(out, x, weight)
      await device.synchronize()
      if (run >= 0) times.push((performance.now() - started) / 4000)
    }
    return (2 * n ** 3) / median(times)
  } finally {
    arena.release()
  }
}
