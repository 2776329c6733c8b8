import type { Device } from './device.ts'
import type { Kernels } from './kernels.ts'

/**
 * A device's layouts without its memory: addresses that nobody may touch, kernels and copies that do nothing. A model that is
 * materialised or run on it says how much memory it needs.
 */
export function measuringDevice(device: Device): Device {
  const nothing = () => {}
  let next = 2 ** 20
  return {
    kind: device.kind,
    description: device.description,
    kernels: new Proxy({}, { get: () => nothing }) as Kernels,
    supports: (dtype) => device.supports(dtype),
    asynchronous: device.asynchronous,
    allocate(bytes) {
      const address = next
      next += Math.ceil(bytes / 2 ** 20) * 2 ** 20
      return address
    },
    release: nothing,
    memory: () => device.memory(),
    upload: nothing,
    download: (src) =>
      src.dtype === 'i32' ? new Int32Array(src.size) : src.dtype === 'u8' ? new Uint8Array(src.size) : new Float32Array(src.size),
    read: (src) => ({ wait: async () => (src.dtype === 'i32' ? new Int32Array(src.size) : new Float32Array(src.size)) }),
    packedBytes: (format, outFeatures, inFeatures) => device.packedBytes(format, outFeatures, inFeatures),
    pack: nothing,
    unpack: (src) => new Float32Array(src.outFeatures * src.inFeatures),
    pageBytes: (shape) => device.pageBytes(shape),
    synchronize: async () => {},
    close: nothing,
  }
}
