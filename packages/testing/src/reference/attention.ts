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
      requireThat('pagedAttention', lengths[s]! <= columns * PAGE_TOKENS, `sequence ${s} has ${lengths[s]} tokens, ${columns} pages`)
      for (let i = 0; i < count; i++) {
        const position = lengths[s]! - count + i
        const from = window > 0 ? Math.max(0, position - window + 1) : 0
        for (let h = 0; h < heads; h++) {
          const kvHead = Math.floor((h * kvHeads) / heads)
          const scores: number[] = []
          for (let t = from; t <= position; t++) {
            const key = at.key(pageOf(s, t), t % PAGE_TOKENS, kvHead)
            let dot = 0
            for (let d = 0; d < keyDim; d++) dot += queries[((first + i) * heads + h) * keyDim + d]! * e.get(key + d)
            let score = dot * scale
            if (softCap > 0) score = softCap * Math.tanh(score / softCap)
            if (slopes) score += slopes[h]! * (t - position)
            scores.push(score)
          }
          const sink = sinkLogits ? sinkLogits[h]! : Number.NEGATIVE_INFINITY
          const max = scores.reduce((a, b) => Math.max(a, b), sink)
          const weights = scores.map((score) => Math.exp(score - max))
          const total = weights.reduce((a, b) => a + b, sinkLogits ? Math.exp(sink - max) : 0)
          const row = ((first + i) * heads + h) * valueDim
          y.fill(0, row, row + valueDim)
          weights.forEach((weight, j) => {
            const value = at.value(pageOf(s, from + j), (from + j) % PAGE_TOKENS, kvHead)
            for (let d = 0; d < valueDim; d++) y[row + d]! += (weight / total) * e.get(value + d)
          })
        }
      }
    }
    views.write(out, y)
  },
})
