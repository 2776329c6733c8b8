import { type Kernels, PAGE_TOKENS, type PagedCache, type PageShape, sizeOf } from '@aphrodite/tensor'
import type { Elements } from './memory.ts'
import { requireDtype, requireFloats, requireShape, requireThat, type Views } from './view.ts'

/** A page is keys [PAGE_TOKENS, kvHeads, keyDim], then values [PAGE_TOKENS, kvHeads, valueDim], row-major. */
export const pageBytes = ({ kvHeads, keyDim, valueDim, dtype }: PageShape): number =>
  Math.ceil((PAGE_TOKENS * kvHeads * (keyDim + valueDim) * sizeOf(dtype)) / 64) * 64

/** Where the key and the value of (page, place in the page, head) begin, in elements of the whole cache. */
function layout(cache: PagedCache) {
  const { kvHeads, keyDim, valueDim, dtype } = cache.shape
  const pageElements = pageBytes(cache.shape) / sizeOf(dtype)
  return {
    key: (page: number, place: number, head: number) => page * pageElements + (place * kvHeads + head) * keyDim,
    value: (page: number, place: number, head: number) =>
      page * pageElements + PAGE_TOKENS * kvHeads * keyDim + (place * kvHeads + head) * valueDim,
  }
}

const elements = (views: Views, cache: PagedCache): Elements =>
  views.memory.elements(cache.address, cache.shape.dtype, (cache.pages * pageBytes(cache.shape)) / sizeOf(cache.shape.dtype))

export const attentionOps = (views: Views): Pick<Kernels, 'writeCache' | 'pagedAttention'> => ({
  writeCache(cache, k, v, slots) {
    const { kvHeads, keyDim, valueDim } = cache.shape
    requireFloats('writeCache', { k, v })
    requireDtype('writeCache', 'i32', { slots })
    requireShape('writeCache', 'k', k, [slots.size, kvHeads, keyDim])
    requireShape('writeCache', 'v', v, [slots.size, kvHeads, valueDim])
    const e = elements(views, cache)
    const at = layout(cache)
    const keys = views.read(k)
    const values = views.read(v)
    views.read(slots).forEach((slot, t) => {
      requireThat('writeCache', slot >= 0 && slot < cache.pages * PAGE_TOKENS, `slot ${slot} is outside the cache of ${cache.pages} pages`)
      const page = Math.floor(slot / PAGE_TOKENS)
      for (let h = 0; h < kvHeads; h++) {
        const key = at.key(page, slot % PAGE_TOKENS, h)
        const value = at.value(page, slot % PAGE_TOKENS, h)
        for (let d = 0; d < keyDim; d++) e.set(key + d, keys[(t * kvHeads + h) * keyDim + d]!)
        for (let d = 0; d < valueDim; d++) e.set(value + d, values[(t * kvHeads + h) * valueDim + d]!)
      }
    })
  },

  pagedAttention(out, q, cache, batch, options) {
    const { kvHeads, keyDim, valueDim } = cache.shape
    requireFloats('pagedAttention', { out, q })
    requireShape('pagedAttention', 'q', q, [-1, -1, keyDim])
    const heads = q.dim(1)
    requireThat('pagedAttention', heads % kvHeads === 0, `${heads} heads over ${kvHeads} kv heads`)
    requireThat(
      'pagedAttention',
      out.rows * out.lastDim === q.dim(0) * heads * valueDim && out.dim(0) === q.dim(0),
      `out is [${out.shape}], it should be [${q.dim(0)}, ${heads * valueDim}]`,
    )
    const { queryStarts, contextLengths, pageTables } = batch
    requireDtype('pagedAttention', 'i32', { slots: batch.slots, queryStarts, contextLengths, pageTables })
    const sequences = contextLengths.size
    requireShape('pagedAttention', 'queryStarts', queryStarts, [sequences + 1])
    requireShape('pagedAttention', 'pageTables', pageTables, [sequences, -1])
    const { alibiSlopes, sinks, window = 0, softCap = 0, scale } = options
    requireDtype('pagedAttention', 'f32', { alibiSlopes, sinks })
    if (alibiSlopes) requireShape('pagedAttention', 'alibiSlopes', alibiSlopes, [heads])
    if (sinks) requireShape('pagedAttention', 'sinks', sinks, [heads])

    const e = elements(views, cache)
    const at = layout(cache)
    const queries = views.read(q)
    const starts = views.read(queryStarts)
    const lengths = views.read(contextLengths)
    const tables = views.read(pageTables)
    const slopes = alibiSlopes && views.read(alibiSlopes)
    const sinkLogits = sinks && views.read(sinks)
    const columns = pageTables.dim(1)
    // Rows that belong to no sequence keep what they hold.
    const y = views.read(out)

    const pageOf = (s: number, t: number): number => {
      const page = tables[s * columns + Math.floor(t / PAGE_TOKENS)] ?? -1
      requireThat('pagedAttention', page >= 0 && page < cache.pages, `page ${page} is outside the cache of ${cache.pages}`)
      return page
    }
    for (let s = 0; s < sequences; s++) {
      const first = starts[s]!
      const count = starts[s + 1]! - first
      const length = lengths[s]!
      requireThat('pagedAttention', length <= columns * PAGE_TOKENS, `sequence ${s} has ${length} tokens, ${columns} pages`)
      for (let kvHead = 0; kvHead < kvHeads && count > 0; kvHead++) {
        const oldest = window > 0 ? Math.max(0, length - count - window + 1) : 0
        const keys = gather(e, oldest, length, keyDim, (t) => at.key(pageOf(s, t), t % PAGE_TOKENS, kvHead))
        const values = gather(e, oldest, length, valueDim, (t) => at.value(pageOf(s, t), t % PAGE_TOKENS, kvHead))
        for (let h = (kvHead * heads) / kvHeads; h < ((kvHead + 1) * heads) / kvHeads; h++) {
          const sink = sinkLogits ? sinkLogits[h]! : undefined
          for (let i = 0; i < count; i++) {
            const position = length - count + i
            const from = window > 0 ? Math.max(0, position - window + 1) : 0
            const scores = new Float64Array(position + 1 - from)
            for (let t = from; t <= position; t++) {
              let dot = 0
              for (let d = 0; d < keyDim; d++) dot += queries[((first + i) * heads + h) * keyDim + d]! * keys[t * keyDim + d]!
              let score = dot * scale
              if (softCap > 0) score = softCap * Math.tanh(score / softCap)
              if (slopes) score += slopes[h]! * (t - position)
              scores[t - from] = score
            }
            const weights = softmax(scores, sink)
            const row = ((first + i) * heads + h) * valueDim
            y.fill(0, row, row + valueDim)
            for (let t = from; t <= position; t++)
              for (let d = 0; d < valueDim; d++) y[row + d]! += weights[t - from]! * values[t * valueDim + d]!
          }
        }
      }
    }
    views.write(out, y)
  },
})

/** Rows [from, to) of `dim` elements, each from where `place` says; row t begins at t · dim. */
function gather(e: Elements, from: number, to: number, dim: number, place: (t: number) => number): Float64Array {
  const rows = new Float64Array(to * dim)
  for (let t = from; t < to; t++) {
    const start = place(t)
    for (let d = 0; d < dim; d++) rows[t * dim + d] = e.get(start + d)
  }
  return rows
}

/** Softmax; a sink is one more score, whose own share is dropped. */
function softmax(scores: Float64Array, sink: number | undefined): Float64Array {
  const max = scores.reduce((a, b) => Math.max(a, b), sink ?? Number.NEGATIVE_INFINITY)
  const weights = scores.map((score) => Math.exp(score - max))
  const total = weights.reduce((a, b) => a + b, sink === undefined ? 0 : Math.exp(sink - max))
  return weights.map((w) => w / total)
}
