import { type HostArray, type HostData, product, type Tensor } from '@aphrodite/tensor'
import { testingError } from '../errors.ts'
import { elementsOf, isElement } from './memory.ts'
import { requireThat } from './view.ts'

/** A reader of a host array's elements by element offset. */
export function hostElements(op: string, src: HostArray): (i: number) => number {
  if (src.dtype === 'f64') {
    const view = new DataView(src.bytes.buffer, src.bytes.byteOffset, src.bytes.byteLength)
    return (i) => view.getFloat64(8 * i, true)
  }
  if (!isElement(src.dtype)) throw testingError('BAD_DTYPE', `${op}: a source of ${src.dtype} has no conversion here`)
  const { bytes } = src
  const size = src.dtype === 'u8' ? 1 : src.dtype === 'f16' || src.dtype === 'bf16' ? 2 : 4
  // Checkpoints put tensors at odd offsets; a typed array wants its own alignment.
  const aligned = bytes.byteOffset % size === 0 ? bytes : bytes.slice()
  const e = elementsOf(aligned.buffer, aligned.byteOffset, src.dtype, Math.floor(bytes.byteLength / size))
  return (i) => e.get(i)
}

/** The source of an upload as row-major values. */
export function hostValues(dst: Tensor, src: HostArray | HostData): ArrayLike<number> {
  if (!('bytes' in src)) {
    requireThat('upload', src.length === dst.size, `${src.length} values for a tensor of shape [${dst.shape}]`)
    const isFloatData = src instanceof Float32Array
    const isIntTensor = dst.dtype === 'i32' || dst.dtype === 'u8'
    if (src instanceof Uint16Array) {
      if (dst.dtype !== 'f16' && dst.dtype !== 'bf16')
        throw testingError('BAD_DTYPE', `upload: a Uint16Array holds the bits of f16 or bf16, the tensor is ${dst.dtype}`)
      const e = elementsOf(src.buffer, src.byteOffset, dst.dtype, src.length)
      return Float64Array.from({ length: src.length }, (_, i) => e.get(i))
    }
    if (isFloatData === isIntTensor) throw testingError('BAD_DTYPE', `upload: ${src.constructor.name} into a tensor of ${dst.dtype}`)
    return src
  }
  requireThat(
    'upload',
    src.shape.length === dst.shape.length && src.shape.every((n, i) => n === dst.shape[i]),
    `[${src.shape}] into [${dst.shape}]`,
  )
  const get = hostElements('upload', src)
  return Float64Array.from({ length: product(src.shape) }, (_, place) => {
    let offset = 0
    for (let d = src.shape.length - 1, rest = place; d >= 0; d--) {
      offset += (rest % src.shape[d]!) * src.strides[d]!
      rest = Math.floor(rest / src.shape[d]!)
    }
    return get(offset)
  })
}
