import {
  DTYPE_CODE,
  type HostArray,
  PAGE_TOKENS,
  type PackedWeight,
  type PageShape,
  WEIGHT_FORMAT_CODE,
  type WeightFormat,
} from '@aphrodite/tensor'
import { kernelsCpuError } from './errors.ts'
import type { Native } from './native.ts'

const BYTES: Readonly<Record<WeightFormat, number>> = { f32: 4, bf16: 2, f16: 2 }

/** Panels of 16 outputs; a step of a panel is 64 bytes: 16 outputs times 4 bytes of inputs. Both sizes are padded. */
export function packedBytes(format: WeightFormat, outFeatures: number, inFeatures: number): number {
  return Math.ceil(outFeatures / 16) * Math.ceil((inFeatures * BYTES[format]) / 4) * 64
}

/** Writes src [rows, columns], floats of any type and strides, into dst from (row, column) on. */
export function pack(native: Native, context: number, dst: PackedWeight, src: HostArray, row: number, column: number): void {
  const [rows, columns] = src.shape
  const [rowStride, columnStride] = src.strides
  if (rows === undefined || columns === undefined || src.shape.length !== 2 || rowStride === undefined || columnStride === undefined)
    throw kernelsCpuError('BAD_ARGUMENT', `pack: src is [${src.shape}]; it should have two dimensions.`)
  if (!(row >= 0 && column >= 0 && row + rows <= dst.outFeatures && column + columns <= dst.inFeatures))
    throw kernelsCpuError(
      'BAD_ARGUMENT',
      `pack: src [${src.shape}] at row ${row}, column ${column} does not fit into [${dst.outFeatures}, ${dst.inFeatures}].`,
    )
  const { address, format, outFeatures, inFeatures } = dst
  native.pack(
    context,
    address,
    WEIGHT_FORMAT_CODE[format],
    outFeatures,
    inFeatures,
    src.bytes,
    DTYPE_CODE[src.dtype],
    rows,
    columns,
    // A stride that no element is reached by may be anything.
    rows > 1 ? rowStride : 0,
    columns > 1 ? columnStride : 1,
    row,
    column,
  )
}

/** The inverse of pack: row-major f32 [outFeatures, inFeatures]. */
export function unpack(native: Native, context: number, src: PackedWeight): Float32Array {
  const { address, format, outFeatures, inFeatures } = src
  const out = new Float32Array(outFeatures * inFeatures)
  native.unpack(context, address, WEIGHT_FORMAT_CODE[format], outFeatures, inFeatures, out)
  return out
}

const LINE_BYTES = 64
const LANES = 16

/** Keys and values of all heads, as lines of 64 bytes: 16 lanes of one number of f32 or two of 16 bits (`native/include/attention.h`). */
export function pageBytes({ kvHeads, keyDim, valueDim, dtype }: PageShape): number {
  const perLane = dtype === 'f32' ? 1 : 2
  const lines = Math.ceil(keyDim / perLane) + Math.ceil(valueDim / LANES) * (PAGE_TOKENS / perLane)
  return kvHeads * lines * LINE_BYTES
}
