import { DTYPE_CODE } from '../dtype.ts'
import { tensorError } from '../errors.ts'
import type { Kernels } from '../kernels.ts'
import type { Tensor } from '../tensor.ts'
import { type PackedWeight, WEIGHT_FORMAT_CODE } from '../weight.ts'
import type { NativeOps } from './ops.ts'

/** Products with packed weights, and rows of packed tables. */
export function linearOps(op: NativeOps, context: number): Pick<Kernels, 'linear' | 'embedding'> {
  return {
    linear(out: Tensor, x: Tensor, weight: PackedWeight, bias?: Tensor) {
      matrix('linear', 'out', out)
      matrix('linear', 'x', x)
      op.linear(
        context,
        out.address,
        DTYPE_CODE[out.dtype],
        out.shape[0]!,
        out.shape[1]!,
        out.strides[0]!,
        x.address,
        DTYPE_CODE[x.dtype],
        x.shape[0]!,
        x.shape[1]!,
        x.strides[0]!,
        weight.address,
        WEIGHT_FORMAT_CODE[weight.format],
        weight.outFeatures,
        weight.inFeatures,
        bias === undefined ? 0 : bias.address,
        bias === undefined ? 0 : DTYPE_CODE[bias.dtype],
        bias === undefined ? 0 : bias.size,
      )
    },
    embedding(out: Tensor, ids: Tensor, table: PackedWeight, firstRow: number) {
      matrix('embedding', 'out', out)
      op.embedding(
        context,
        out.address,
        DTYPE_CODE[out.dtype],
        out.shape[0]!,
        out.shape[1]!,
        out.strides[0]!,
        ids.address,
        DTYPE_CODE[ids.dtype],
        ids.size,
        table.address,
        WEIGHT_FORMAT_CODE[table.format],
        table.outFeatures,
        table.inFeatures,
        firstRow,
      )
    },
  }
}

function matrix(op: string, name: string, t: Tensor): void {
  if (t.shape.length !== 2) throw tensorError('BAD_SHAPE', `${op}: ${name} is [${t.shape}]; it should have two dimensions. Use view.`)
  if (t.strides[1] !== 1 && t.shape[1]! > 1)
    throw tensorError('BAD_SHAPE', `${op}: ${name} has a stride of ${t.strides[1]} in its last dimension; it should be contiguous there.`)
}
