import { DTYPE_CODE } from '../dtype.ts'
import { tensorError } from '../errors.ts'
import { ACTIVATION_CODE, type Activation, type Kernels } from '../kernels.ts'
import type { Tensor } from '../tensor.ts'
import type { NativeOps } from './ops.ts'

type ElementwiseOps = Pick<
  Kernels,
  | 'gatherRows'
  | 'feedTokens'
  | 'rmsNorm'
  | 'addRmsNorm'
  | 'layerNorm'
  | 'add'
  | 'scale'
  | 'softCap'
  | 'activate'
  | 'activateAndMul'
  | 'copy'
  | 'fill'
>

/** Norms, activations and other ops on rows. Tensors of any rank: the rows are the first dimension, whose stride may be anything. */
export function elementwiseOps(op: NativeOps, context: number): ElementwiseOps {
  return {
    gatherRows(out, x, rows) {
      op.gatherRows(context, ...matrix('gatherRows', 'out', out), ...matrix('gatherRows', 'x', x), ...vector('gatherRows', 'rows', rows))
    },
    feedTokens(ids, lastTokens, sources) {
      const last = vector('feedTokens', 'lastTokens', lastTokens)
      op.feedTokens(context, ...vector('feedTokens', 'ids', ids), ...last, ...vector('feedTokens', 'sources', sources))
    },
    rmsNorm(out, x, weight, eps, weightOffset) {
      sameShape('rmsNorm', out, x)
      norms('rmsNorm', weight, x)
      const w = vector('rmsNorm', 'weight', weight)
      op.rmsNorm(context, ...matrix('rmsNorm', 'out', out), ...matrix('rmsNorm', 'x', x), ...w, eps, weightOffset)
    },
    addRmsNorm(out, residual, x, weight, eps, weightOffset) {
      sameShape('addRmsNorm', out, x)
      sameShape('addRmsNorm', residual, x)
      norms('addRmsNorm', weight, x)
      op.addRmsNorm(
        context,
        ...matrix('addRmsNorm', 'out', out),
        ...matrix('addRmsNorm', 'residual', residual),
        ...matrix('addRmsNorm', 'x', x),
        ...vector('addRmsNorm', 'weight', weight),
        eps,
        weightOffset,
      )
    },
    layerNorm(out, x, weight, bias, eps) {
      sameShape('layerNorm', out, x)
      norms('layerNorm', weight, x)
      const b = bias ? vector('layerNorm', 'bias', bias) : [0, 0, 0]
      const w = vector('layerNorm', 'weight', weight)
      op.layerNorm(context, ...matrix('layerNorm', 'out', out), ...matrix('layerNorm', 'x', x), ...w, ...b, eps)
    },
    add(out, a, b) {
      sameShape('add', out, a)
      sameShape('add', out, b)
      op.add(context, ...matrix('add', 'out', out), ...matrix('add', 'a', a), ...matrix('add', 'b', b))
    },
    scale(out, x, factor) {
      sameShape('scale', out, x)
      op.scale(context, ...matrix('scale', 'out', out), ...matrix('scale', 'x', x), factor)
    },
    softCap(out, x, cap) {
      sameShape('softCap', out, x)
      op.softCap(context, ...matrix('softCap', 'out', out), ...matrix('softCap', 'x', x), cap)
    },
    activate(out, x, activation: Activation) {
      sameShape('activate', out, x)
      op.activate(context, ...matrix('activate', 'out', out), ...matrix('activate', 'x', x), ACTIVATION_CODE[activation])
    },
    activateAndMul(out, x, activation: Activation) {
      if (x.shape.length !== 2 || out.shape.length !== 2)
        throw tensorError('BAD_SHAPE', `activateAndMul: out is [${out.shape}] and x [${x.shape}]; both should have two dimensions`)
      const code = ACTIVATION_CODE[activation]
      op.activateAndMul(context, ...matrix('activateAndMul', 'out', out), ...matrix('activateAndMul', 'x', x), code)
    },
    copy(out, x) {
      sameShape('copy', out, x)
      op.copy(context, ...matrix('copy', 'out', out), ...matrix('copy', 'x', x))
    },
    fill(out, value) {
      op.fill(context, ...matrix('fill', 'out', out), value)
    },
  }
}

/** Address, dtype, rows, columns, row stride: the first dimension are the rows, all others the columns. */
export function matrix(op: string, name: string, t: Tensor): [number, number, number, number, number] {
  const { shape, strides } = t
  let columns = 1
  for (let d = shape.length - 1; d > 0; d--) {
    const n = shape[d]!
    if (n !== 1 && strides[d] !== columns)
      throw tensorError(
        'BAD_SHAPE',
        `${op}: ${name} [${shape}] has strides [${strides}]: only the first dimension's may be odd. Copy it into a contiguous tensor.`,
      )
    columns *= n
  }
  if (shape.length > 1) return [t.address, DTYPE_CODE[t.dtype], shape[0]!, columns, shape[0]! > 1 ? strides[0]! : columns]
  const [address, dtype, length] = vector(op, name, t)
  return [address, dtype, 1, length, length]
}

function vector(op: string, name: string, t: Tensor): [number, number, number] {
  if (t.shape.length > 1) throw tensorError('BAD_SHAPE', `${op}: ${name} is [${t.shape}]; it should have one dimension`)
  const length = t.shape[0] ?? 1
  if (length > 1 && t.strides[0] !== 1) throw tensorError('BAD_SHAPE', `${op}: ${name} has stride ${t.strides[0]}; it should be contiguous`)
  return [t.address, DTYPE_CODE[t.dtype], length]
}

function sameShape(op: string, a: Tensor, b: Tensor): void {
  const same = a.shape.length === b.shape.length && a.shape.every((n, i) => n === b.shape[i])
  if (!same) throw tensorError('BAD_SHAPE', `${op}: the tensors are [${a.shape}] and [${b.shape}]; they should have one shape`)
}

function norms(op: string, weight: Tensor, x: Tensor): void {
  if (weight.size !== x.lastDim)
    throw tensorError('BAD_SHAPE', `${op}: weight is [${weight.shape}]; it should have the ${x.lastDim} elements of x's last dimension`)
}
