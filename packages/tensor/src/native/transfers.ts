import type { HostArray, HostData } from '../device.ts'
import { DTYPE_CODE, type DType, isFloat, sizeOf } from '../dtype.ts'
import { tensorError } from '../errors.ts'
import { product, type Tensor } from '../tensor.ts'
import { type PackedWeight, WEIGHT_FORMAT_CODE } from '../weight.ts'

type HostView = Float32Array | Int32Array | Uint16Array | Uint8Array | Int8Array

/** What an addon exports for copies between host and device. Addresses are numbers below 2^53. */
export interface NativeTransfers {
  /** dims: extent, device stride, host stride of each dimension. */
  upload(context: number, address: number, dtype: number, host: HostView, hostDtype: number, rank: number, ...dims: number[]): void
  download(context: number, address: number, dtype: number, host: HostView, hostDtype: number, rank: number, ...dims: number[]): void
  /** n, k: of the packed weight; place: src's rows, columns, row stride, column stride, then dst's row and column. */
  pack(context: number, address: number, format: number, n: number, k: number, src: HostView, dtype: number, ...place: number[]): void
  unpack(context: number, address: number, format: number, n: number, k: number, dst: Float32Array): void
}

/** `Device.upload` of a native backend. */
export function upload(native: NativeTransfers, context: number, dst: Tensor, src: HostArray | HostData): void {
  const { address, dtype, shape, strides } = dst
  const code = DTYPE_CODE[dtype]
  if (ArrayBuffer.isView(src)) {
    const from = hostDType(src, dtype)
    if (product(shape) !== src.length)
      throw tensorError('BAD_ARGUMENT', `upload: src has ${src.length} elements, dst is [${shape}]. Give as many.`)
    if (dst.isContiguous()) native.upload(context, address, code, src, DTYPE_CODE[from], 1, src.length, 1, 1)
    else native.upload(context, address, code, src, DTYPE_CODE[from], shape.length, ...dims(shape, strides, rowMajor(shape)))
    return
  }
  if (src.shape.length !== shape.length || src.shape.some((n, i) => n !== shape[i]))
    throw tensorError('BAD_ARGUMENT', `upload: src is [${src.shape}], dst is [${shape}]. They should be equal.`)
  const from = DTYPE_CODE[src.dtype]
  native.upload(context, address, code, src.bytes, from, shape.length, ...dims(shape, strides, src.strides))
}

/** `Device.download` of a native backend. */
export function download(native: NativeTransfers, context: number, src: Tensor): Float32Array | Int32Array | Uint8Array {
  const { address, dtype, shape, strides } = src
  const size = src.size
  if (!isFloat(dtype) && dtype !== 'i32' && dtype !== 'u8')
    throw tensorError('BAD_ARGUMENT', `download: src is ${dtype}; floats, i32 and u8 can be downloaded.`)
  const host = isFloat(dtype) ? new Float32Array(size) : dtype === 'i32' ? new Int32Array(size) : new Uint8Array(size)
  const code = isFloat(dtype) ? DTYPE_CODE.f32 : DTYPE_CODE[dtype]
  native.download(context, address, DTYPE_CODE[dtype], host, code, shape.length, ...dims(shape, strides, rowMajor(shape)))
  return host
}

/** `Device.pack` of a native backend: src [rows, columns], floats of any type and strides, goes into dst from (row, column) on. */
export function packWeight(native: NativeTransfers, context: number, dst: PackedWeight, src: HostArray, row: number, column: number): void {
  const [rows, columns] = src.shape
  const [rowStride, columnStride] = src.strides
  if (rows === undefined || columns === undefined || src.shape.length !== 2 || rowStride === undefined || columnStride === undefined)
    throw tensorError('BAD_ARGUMENT', `pack: src is [${src.shape}]; it should have two dimensions.`)
  if (!(row >= 0 && column >= 0 && row + rows <= dst.outFeatures && column + columns <= dst.inFeatures))
    throw tensorError(
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

/** `Device.unpack` of a native backend: row-major f32 [outFeatures, inFeatures]. */
export function unpackWeight(native: NativeTransfers, context: number, src: PackedWeight): Float32Array {
  const { address, format, outFeatures, inFeatures } = src
  const out = new Float32Array(outFeatures * inFeatures)
  native.unpack(context, address, WEIGHT_FORMAT_CODE[format], outFeatures, inFeatures, out)
  return out
}

/** What a typed array holds: the tensor's own type where it fits the array's element size, as there is no array of bf16. */
function hostDType(data: HostData, dst: DType): DType {
  if (data instanceof Float32Array) return 'f32'
  if (data instanceof Int32Array) return 'i32'
  if (data instanceof Int8Array) return 'i8'
  if (data instanceof Uint16Array) return sizeOf(dst) === 2 ? dst : 'u16'
  return sizeOf(dst) === 1 ? dst : 'u8'
}

const rowMajor = (shape: readonly number[]): number[] => {
  const strides = new Array<number>(shape.length)
  for (let i = shape.length - 1, s = 1; i >= 0; s *= shape[i--]!) strides[i] = s
  return strides
}

/** Extent, device stride and host stride of each dimension. */
function dims(shape: readonly number[], device: readonly number[], host: readonly number[]): number[] {
  return shape.flatMap((n, i) => [n, device[i]!, host[i]!])
}
