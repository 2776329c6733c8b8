import { DTYPE_CODE } from '../dtype.ts'
import { tensorError } from '../errors.ts'
import type { Kernels } from '../kernels.ts'
import type { Tensor } from '../tensor.ts'
import type { NativeOps } from './ops.ts'

/** From logits to tokens. `Kernels.sample` says exactly which token a row gives. */
export function samplingOps(op: NativeOps, context: number): Pick<Kernels, 'penalize' | 'addSparse' | 'sample' | 'logProbs'> {
  return {
    penalize(logits, { repetition, presence, frequency }, history) {
      op.penalize(
        context,
        ...matrix('penalize', 'logits', logits),
        ...vector('penalize', 'repetition', repetition),
        ...vector('penalize', 'presence', presence),
        ...vector('penalize', 'frequency', frequency),
        ...vector('penalize', 'promptOffsets', history.promptOffsets),
        ...vector('penalize', 'promptIds', history.promptIds),
        ...vector('penalize', 'outputOffsets', history.outputOffsets),
        ...vector('penalize', 'outputIds', history.outputIds),
      )
    },
    addSparse(logits, offsets, ids, values) {
      op.addSparse(
        context,
        ...matrix('addSparse', 'logits', logits),
        ...vector('addSparse', 'offsets', offsets),
        ...vector('addSparse', 'ids', ids),
        ...vector('addSparse', 'values', values),
      )
    },
    sample(tokens, logits, { temperature, topK, topP, minP, seeds }) {
      if (seeds.lastDim !== 3) throw tensorError('BAD_SHAPE', `sample: seeds is [${seeds.shape}]; it should be [rows, 3]`)
      op.sample(
        context,
        ...vector('sample', 'tokens', tokens),
        ...matrix('sample', 'logits', logits),
        ...vector('sample', 'temperature', temperature),
        ...vector('sample', 'topK', topK),
        ...vector('sample', 'topP', topP),
        ...vector('sample', 'minP', minP),
        ...vector('sample', 'seeds', seeds),
      )
    },
    logProbs(values, ids, ranks, logits, chosen) {
      op.logProbs(
        context,
        ...matrix('logProbs', 'values', values),
        ...matrix('logProbs', 'ids', ids),
        ...vector('logProbs', 'ranks', ranks),
        ...matrix('logProbs', 'logits', logits),
        ...vector('logProbs', 'chosen', chosen),
      )
    },
  }
}

/** Address, dtype, rows, columns, row stride. */
function matrix(op: string, name: string, t: Tensor): [number, number, number, number, number] {
  if (t.shape.length !== 2) throw tensorError('BAD_SHAPE', `${op}: ${name} is [${t.shape}]; it should have two dimensions`)
  if (t.shape[1]! > 1 && t.strides[1] !== 1)
    throw tensorError('BAD_SHAPE', `${op}: ${name} has stride ${t.strides[1]} in its last dimension; it should be contiguous there`)
  return [t.address, DTYPE_CODE[t.dtype], t.shape[0]!, t.shape[1]!, t.shape[0]! > 1 ? t.strides[0]! : t.shape[1]!]
}

/** Address, dtype, number of elements of a contiguous tensor. */
function vector(op: string, name: string, t: Tensor): [number, number, number] {
  if (!t.isContiguous()) throw tensorError('BAD_SHAPE', `${op}: ${name} [${t.shape}] has strides [${t.strides}]; it should be contiguous`)
  return [t.address, DTYPE_CODE[t.dtype], t.size]
}
