import type { Memory } from './tensor.ts'

/** How a packed weight stores its numbers. Quantised formats join this list. */
export type WeightFormat = 'f32' | 'f16' | 'bf16'

export const WEIGHT_FORMAT_CODE: Readonly<Record<WeightFormat, number>> = { f32: 0, bf16: 1, f16: 2 }

/**
 * A weight matrix [outFeatures, inFeatures] in the layout that its device multiplies fastest; what that is, only the device
 * knows (`Device.packedBytes`, `Device.pack`). Kernels that read it: `linear` and `embedding`.
 */
export class PackedWeight {
  readonly address: number
  readonly format: WeightFormat
  readonly outFeatures: number
  readonly inFeatures: number
  readonly memory: Memory

  constructor(address: number, format: WeightFormat, outFeatures: number, inFeatures: number, memory: Memory) {
    this.address = address
    this.format = format
    this.outFeatures = outFeatures
    this.inFeatures = inFeatures
    this.memory = memory
  }
}
