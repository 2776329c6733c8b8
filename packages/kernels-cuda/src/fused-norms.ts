import { DTYPE_CODE, sizeOf, type Tensor } from '@aphrodite/tensor'
import type { FusedOps } from './fused-kernels.ts'

/** What the addon exports for this op: the context's handle, then numbers (`native/addon/fused_norms_ops.cc`). */
export interface NativeFusedNorms {
  fusedNorms(context: number, ...numbers: number[]): void
}

/** `FusedOps.fusedNorms`. */
export function fusedNorms(native: NativeFusedNorms, context: number, ...call: Parameters<FusedOps['fusedNorms']>): void {
  const [out, residual, x, first, second] = call
  native.fusedNorms(
    context,
    ...matrixNumbers(out),
    ...matrixNumbers(residual),
    ...matrixNumbers(x),
    ...[first, second].flatMap(({ weight, eps, weightOffset }) => [
      weight.address,
      DTYPE_CODE[weight.dtype],
      weight.size,
      eps,
      weightOffset,
    ]),
  )
}

/** 16-byte vectors that a row may have. */
const MOST_VECTORS = 2048

/** Whether the kernel takes these arguments: x, out and the weights of one type, rows of whole vectors. */
export function fusedNormsFits(...[out, residual, x, first, second]: Parameters<FusedOps['fusedNorms']>): boolean {
  const { dtype } = out
  const vector = 16 / sizeOf(dtype)
  const n = out.lastDim
  const isOfRows = (t: Tensor): boolean =>
    t.shape.length === 2 &&
    t.dim(0) === out.dim(0) &&
    t.dim(1) === n &&
    t.stride(1) === 1 &&
    (t.dim(0) === 1 || t.stride(0) % vector === 0) &&
    t.address % (vector * sizeOf(t.dtype)) === 0
  const isOfColumns = ({ weight }: { weight: Tensor }): boolean => weight.dtype === dtype && weight.size === n && weight.address % 16 === 0
  return (
    n % vector === 0 &&
    n / vector <= MOST_VECTORS &&
    x.dtype === dtype &&
    (residual.dtype === 'f32' || residual.dtype === dtype) &&
    [out, residual, x].every(isOfRows) &&
    [first, second].every(isOfColumns)
  )
}

const matrixNumbers = (t: Tensor): number[] => [t.address, DTYPE_CODE[t.dtype], t.dim(0), t.dim(1), t.dim(0) > 1 ? t.stride(0) : t.dim(1)]
