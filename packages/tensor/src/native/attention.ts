import type { PagedCache } from '../cache.ts'
import { DTYPE_CODE } from '../dtype.ts'
import { tensorError } from '../errors.ts'
import type { AttentionBatch, AttentionOptions, Kernels, RotaryOptions } from '../kernels.ts'
import type { Tensor } from '../tensor.ts'
import type { NativeOps } from './ops.ts'

/** Rotary embeddings, the paged cache, and attention over it. */
export function attentionOps(op: NativeOps, context: number): Pick<Kernels, 'rotary' | 'writeCache' | 'pagedAttention'> {
  return {
    rotary(q: Tensor, k: Tensor, positions: Tensor, cosSin: Tensor, options: RotaryOptions) {
      const { selector } = options
      heads('rotary', 'q', q)
      heads('rotary', 'k', k)
      if (selector && cosSin.shape[0]! % 2 !== 0)
        throw tensorError('BAD_SHAPE', `rotary: cosSin has ${cosSin.shape[0]} rows; with a selector it should have two halves.`)
      op.rotary(
        context,
        q.address,
        DTYPE_CODE[q.dtype],
        q.shape[0]!,
        q.shape[1]! * q.shape[2]!,
        q.strides[0]!,
        q.shape[1]!,
        k.address,
        DTYPE_CODE[k.dtype],
        k.shape[0]!,
        k.shape[1]! * k.shape[2]!,
        k.strides[0]!,
        k.shape[1]!,
        positions.address,
        DTYPE_CODE[positions.dtype],
        positions.size,
        cosSin.address,
        DTYPE_CODE[cosSin.dtype],
        cosSin.shape[0]!,
        cosSin.lastDim,
        cosSin.strides[0]!,
        options.interleaved ? 1 : 0,
        selector ? selector.address : 0,
        selector ? DTYPE_CODE[selector.dtype] : 0,
        selector ? selector.size : 0,
        options.bound ?? 0,
      )
    },

    writeCache(cache: PagedCache, k: Tensor, v: Tensor, slots: Tensor) {
      const { kvHeads, keyDim, valueDim, dtype } = cache.shape
      heads('writeCache', 'k', k)
      heads('writeCache', 'v', v)
      if (k.shape[1] !== kvHeads || v.shape[1] !== kvHeads)
        throw tensorError('BAD_SHAPE', `writeCache: k is [${k.shape}] and v is [${v.shape}]; the cache has ${kvHeads} kv heads.`)
      op.writeCache(
        context,
        cache.address,
        DTYPE_CODE[dtype],
        cache.pages,
        kvHeads,
        keyDim,
        valueDim,
        k.address,
        DTYPE_CODE[k.dtype],
        k.shape[0]!,
        kvHeads * k.shape[2]!,
        k.strides[0]!,
        v.address,
        DTYPE_CODE[v.dtype],
        v.shape[0]!,
        kvHeads * v.shape[2]!,
        v.strides[0]!,
        slots.address,
        DTYPE_CODE[slots.dtype],
        slots.size,
      )
    },

    pagedAttention(out: Tensor, q: Tensor, cache: PagedCache, batch: AttentionBatch, options: AttentionOptions) {
      const { queryStarts, contextLengths, pageTables } = batch
      const { alibiSlopes, sinks } = options
      const { kvHeads, keyDim, valueDim, dtype } = cache.shape
      heads('pagedAttention', 'q', q)
      if (out.shape.length === 3) heads('pagedAttention', 'out', out)
      else if (out.shape.length !== 2 || (out.strides[1] !== 1 && out.shape[1]! > 1))
        throw tensorError(
          'BAD_SHAPE',
          `pagedAttention: out is [${out.shape}]; it should be [tokens, heads · ${valueDim}], its rows contiguous.`,
        )
      op.pagedAttention(
        context,
        out.address,
        DTYPE_CODE[out.dtype],
        out.shape[0]!,
        out.shape.length === 3 ? out.shape[1]! * out.shape[2]! : out.shape[1]!,
        out.strides[0]!,
        q.address,
        DTYPE_CODE[q.dtype],
        q.shape[0]!,
        q.shape[1]! * q.shape[2]!,
        q.strides[0]!,
        q.shape[1]!,
        cache.address,
        DTYPE_CODE[dtype],
        cache.pages,
        kvHeads,
        keyDim,
        valueDim,
        queryStarts.address,
        DTYPE_CODE[queryStarts.dtype],
        queryStarts.size,
        contextLengths.address,
        DTYPE_CODE[contextLengths.dtype],
        contextLengths.size,
        pageTables.address,
        DTYPE_CODE[pageTables.dtype],
        pageTables.shape[0]!,
        pageTables.lastDim,
        pageTables.strides[0]!,
        options.scale,
        options.window ?? 0,
        options.softCap ?? 0,
        alibiSlopes ? alibiSlopes.address : 0,
        alibiSlopes ? DTYPE_CODE[alibiSlopes.dtype] : 0,
        alibiSlopes ? alibiSlopes.size : 0,
        sinks ? sinks.address : 0,
        sinks ? DTYPE_CODE[sinks.dtype] : 0,
        sinks ? sinks.size : 0,
        batch.maxQueryLength,
        batch.maxContextLength,
      )
    },
  }
}

/** [tokens, heads, dim], of which only the first stride may be anything. */
function heads(op: string, name: string, t: Tensor): void {
  const { shape, strides } = t
  if (shape.length !== 3) throw tensorError('BAD_SHAPE', `${op}: ${name} is [${shape}]; it should be [tokens, heads, dim]. Use view.`)
  if ((strides[2] !== 1 && shape[2]! > 1) || (strides[1] !== shape[2] && shape[1]! > 1))
    throw tensorError('BAD_SHAPE', `${op}: ${name} is [${shape}] with strides [${strides}]; a token's heads should be contiguous.`)
}
