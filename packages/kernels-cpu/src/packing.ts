import type { HostArray, PackedWeight, WeightFormat } from '@aphrodite/tensor'
import { kernelsCpuError } from './errors.ts'
import { type Native, nativeOps } from './native.ts'

const BYTES: Readonly<Record<WeightFormat, number>> = { f32: 4, bf16: 2, f16: 2 }

/** Panels of 16 outputs; a step of a panel is 64 bytes: 16 outputs times 4 bytes of inputs. Both sizes are padded. */
export function packedBytes(format: WeightFormat, outFeatures: number, inFeatures: number): number {
  return Math.ceil(outFeatures / 16) * Math.ceil((inFeatures * BYTES[format]) / 4) * 64
}

export function weightPacking(_native: Native, _context: number) {
  return {
    pack(_dst: PackedWeight, _src: HostArray, _row: number, _column: number): void {
      throw kernelsCpuError('BAD_ARGUMENT', 'pack')
    },
    unpack(_src: PackedWeight): Float32Array {
      throw kernelsCpuError('BAD_ARGUMENT', 'unpack')
    },
  }
}
void nativeOps
