import { type Device, isFloat, type Kernels } from '@aphrodite/tensor'
import { attentionOps, pageBytes } from './attention.ts'
import { elementwiseOps } from './elementwise.ts'
import { hostValues } from './host.ts'
import { linearOps, pack, packedBytes, requireFormat, unpack } from './linear.ts'
import { isElement, ReferenceMemory } from './memory.ts'
import { normOps } from './norms.ts'
import { rotaryOps } from './rotary.ts'
import { samplingOps } from './sampling.ts'
import { Views } from './view.ts'

export interface ReferenceDeviceOptions {
  /** How much it will give out; memory that is never touched costs nothing. Default 4 GiB. */
  readonly memoryBytes?: number
}

/**
 * A device in plain TypeScript that other devices are held against: every op in float64, rounded once to the type of its
 * output. Slow and obvious. It throws for wrong shapes and types and for memory that it did not give out.
 */
export function createReferenceDevice(options: ReferenceDeviceOptions = {}): Device {
  const memory = new ReferenceMemory(options.memoryBytes ?? 2 ** 32)
  const views = new Views(memory)
  const kernels: Kernels = {
    ...linearOps(views),
    ...normOps(views),
    ...elementwiseOps(views),
    ...rotaryOps(views),
    ...attentionOps(views),
    ...samplingOps(views),
  }
  return {
    kind: 'reference',
    description: 'reference (float64 in TypeScript)',
    kernels,
    supports: isFloat,
    asynchronous: false,
    allocate: (bytes) => memory.allocate(bytes),
    release: (address) => memory.release(address),
    memory: () => memory.info(),
    upload: (dst, src) => views.write(dst, hostValues(dst, src)),
    download(src) {
      const values = views.read(src)
      if (src.dtype === 'i32') return Int32Array.from(values)
      return isElement(src.dtype) && isFloat(src.dtype) ? Float32Array.from(values) : Uint8Array.from(values)
    },
    read(src) {
      const values = views.read(src)
      const host = src.dtype === 'i32' ? Int32Array.from(values) : Float32Array.from(values)
      return { wait: () => Promise.resolve(host) }
    },
    packedBytes(format, outFeatures, inFeatures) {
      requireFormat(format)
      return packedBytes(format, outFeatures, inFeatures)
    },
    pack: (dst, src, row, column) => pack(views, dst, src, row, column),
    unpack: (src) => unpack(views, src),
    pageBytes,
    synchronize: () => Promise.resolve(),
    close: () => memory.clear(),
  }
}
