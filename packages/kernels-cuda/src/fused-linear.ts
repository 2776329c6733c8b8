import { ACTIVATION_CODE, DTYPE_CODE, sizeOf, type Tensor, WEIGHT_FORMAT_CODE } from '@aphrodite/tensor'
import type { FusedOps } from './fused-kernels.ts'

/** What the addon exports for this op: the context's handle, then numbers. */
export interface NativeFusedLinear {
  /** out and x matrices, weight, bias and norm weight or zeros, eps, weightOffset, residual, activation or -1. */
  fusedLinear(context: number, ...numbers: number[]): void
  /** Tokens, weight format, n, k, dtypes of x and out, whether there is a norm, residual, activation or -1. */
  fusedLinearFits(context: number, ...numbers: number[]): boolean
}

/** `FusedOps.fusedLinear`. */
export function fusedLinear(native: NativeFusedLinear, context: number, ...call: Parameters<FusedOps['fusedLinear']>): void {
  native.fusedLinear(context, ...linearNumbers(...call))
}

export function linearNumbers(...call: Parameters<FusedOps['fusedLinear']>): number[] {
  const [out, x, weight, { bias, norm, residual, activation }] = call
  return [
    ...matrixNumbers(out),
    ...matrixNumbers(x),
    weight.address,
    WEIGHT_FORMAT_CODE[weight.format],
    weight.outFeatures,
    weight.inFeatures,
    ...vectorNumbers(bias),
    ...vectorNumbers(norm?.weight),
    norm?.eps ?? 0,
    norm?.weightOffset ?? 0,
    residual ? 1 : 0,
    activation ? ACTIVATION_CODE[activation] : -1,
  ]
}

/** Whether there is a kernel for these arguments that gains something. */
export function fusedLinearFits(native: NativeFusedLinear, context: number, ...call: Parameters<FusedOps['fusedLinear']>): boolean {
  const [out, x, weight, { bias, norm, residual, activation }] = call
  const { format, outFeatures, inFeatures } = weight
  const columns = activation ? outFeatures / 2 : outFeatures
  if (!isMatrix(out, columns) || !isMatrix(x, inFeatures) || !isAligned(x) || out.dim(0) !== x.dim(0)) return false
  if ((bias && (bias.size !== outFeatures || !bias.isContiguous())) || (norm && norm.weight.size !== inFeatures)) return false
  return native.fusedLinearFits(
    context,
    x.dim(0),
    WEIGHT_FORMAT_CODE[format],
    outFeatures,
    inFeatures,
    DTYPE_CODE[x.dtype],
    DTYPE_CODE[out.dtype],
    norm ? 1 : 0,
    residual ? 1 : 0,
    activation ? ACTIVATION_CODE[activation] : -1,
  )
}

const isMatrix = (t: Tensor, columns: number): boolean =>
  t.shape.length === 2 && t.dim(1) === columns && (columns === 1 || t.stride(1) === 1)
/** Rows start where 16 bytes do: what the addon assumes when it is asked. */
const isAligned = (t: Tensor): boolean => t.address % 16 === 0 && (t.dim(0) === 1 || (t.stride(0) * sizeOf(t.dtype)) % 16 === 0)
const matrixNumbers = (t: Tensor): number[] => [t.address, DTYPE_CODE[t.dtype], t.dim(0), t.dim(1), t.dim(0) > 1 ? t.stride(0) : t.dim(1)]
const vectorNumbers = (t: Tensor | undefined): number[] => (t ? [t.address, DTYPE_CODE[t.dtype], t.size] : [0, 0, 0])
