import type { Kernels, Tensor } from '@aphrodite/tensor'
import { philox } from './philox.ts'
import { requireDtype, requireShape, requireThat, type Views } from './view.ts'

type SamplingOps = Pick<Kernels, 'penalize' | 'addSparse' | 'sample' | 'logProbs'>

export const samplingOps = (views: Views): SamplingOps => ({
  penalize(logits, penalties, history) {
    const { repetition, presence, frequency } = penalties
    const [rows, vocab] = logitShape('penalize', logits)
    requireDtype('penalize', 'f32', { repetition, presence, frequency })
    for (const [name, t] of Object.entries({ repetition, presence, frequency })) requireShape('penalize', name, t, [rows])
    const prompt = lists(views, 'penalize', history.promptOffsets, history.promptIds, rows)
    const output = lists(views, 'penalize', history.outputOffsets, history.outputIds, rows)
    const [r, p, f] = [views.read(repetition), views.read(presence), views.read(frequency)]
    const x = views.read(logits)
    for (let row = 0; row < rows; row++) {
      const inVocab = (id: number) => id >= 0 && id < vocab
      const counts = new Map<number, number>()
      for (const id of prompt[row]!.filter(inVocab)) counts.set(id, 0)
      for (const id of output[row]!.filter(inVocab)) counts.set(id, (counts.get(id) ?? 0) + 1)
      for (const [id, count] of counts) {
        const at = row * vocab + id
        const repeated = x[at]! > 0 ? x[at]! / r[row]! : x[at]! * r[row]!
        x[at] = count > 0 ? repeated - f[row]! * count - p[row]! : repeated
      }
    }
    views.write(logits, x)
  },

  addSparse(logits, offsets, ids, values) {
    const [rows, vocab] = logitShape('addSparse', logits)
    requireDtype('addSparse', 'f32', { values })
    requireShape('addSparse', 'values', values, ids.shape)
    const perRow = lists(views, 'addSparse', offsets, ids, rows)
    const starts = views.read(offsets)
    const added = views.read(values)
    const x = views.read(logits)
    perRow.forEach((list, row) => {
      list.forEach((id, i) => {
        if (id >= 0 && id < vocab) x[row * vocab + id]! += added[starts[row]! + i]!
      })
    })
    views.write(logits, x)
  },

  sample(tokens, logits, batch) {
    const [rows, vocab] = logitShape('sample', logits)
    const { temperature, topK, topP, minP, seeds } = batch
    requireDtype('sample', 'i32', { tokens, topK, seeds })
    requireDtype('sample', 'f32', { temperature, topP, minP })
    for (const [name, t] of Object.entries({ tokens, temperature, topK, topP, minP })) requireShape('sample', name, t, [rows])
    requireShape('sample', 'seeds', seeds, [rows, 3])
    const x = views.read(logits)
    const [t, k, p, m, words] = [temperature, topK, topP, minP, seeds].map((tensor) => views.read(tensor)) as [
      Float64Array,
      Float64Array,
      Float64Array,
      Float64Array,
      Float64Array,
    ]
    const chosen = new Float64Array(rows)
    for (let row = 0; row < rows; row++) {
      const filter = { temperature: t[row]!, topK: k[row]!, topP: p[row]!, minP: m[row]! }
      const kept = keptTokens(x.subarray(row * vocab, row * vocab + vocab), filter)
      chosen[row] = draw(kept, [words[3 * row]!, words[3 * row + 1]!, words[3 * row + 2]!])
    }
    views.write(tokens, chosen)
  },

  logProbs(values, ids, ranks, logits, chosen) {
    const [rows, vocab] = logitShape('logProbs', logits)
    requireDtype('logProbs', 'f32', { values })
    requireDtype('logProbs', 'i32', { ids, ranks, chosen })
    const width = values.lastDim
    requireShape('logProbs', 'values', values, [rows, width])
    requireShape('logProbs', 'ids', ids, [rows, width])
    requireShape('logProbs', 'ranks', ranks, [rows])
    requireShape('logProbs', 'chosen', chosen, [rows])
    requireThat('logProbs', width >= 1 && width - 1 <= vocab, `${width - 1} of ${vocab} tokens were asked for`)
    const x = views.read(logits)
    const wanted = views.read(chosen)
    const outValues = new Float64Array(rows * width)
    const outIds = new Float64Array(rows * width)
    const outRanks = new Float64Array(rows)
    for (let row = 0; row < rows; row++) {
      const logit = x.slice(row * vocab, row * vocab + vocab).map(nanIsNever)
      const order = likeliestFirst(logit)
      const max = logit[order[0]!]!
      const total = Math.log(logit.reduce((sum, v) => sum + Math.exp(fromTop(v, max)), 0))
      const logProb = (id: number) => {
        if (!(id >= 0 && id < vocab) || logit[id] === Number.NEGATIVE_INFINITY) return Number.NEGATIVE_INFINITY
        return fromTop(logit[id]!, max) - total
      }
      const shown = [wanted[row]!, ...order.slice(0, width - 1)]
      shown.forEach((id, i) => {
        outIds[row * width + i] = id
        outValues[row * width + i] = logProb(id)
      })
      outRanks[row] = order.indexOf(wanted[row]!) + 1
    }
    views.write(values, outValues)
    views.write(ids, outIds)
    views.write(ranks, outRanks)
  },
})

export interface Filter {
  readonly temperature: number
  readonly topK: number
  readonly topP: number
  readonly minP: number
}

/** A token that may be drawn, and how likely it is relative to the likeliest one. */
export interface KeptToken {
  readonly id: number
  readonly weight: number
}

const nanIsNever = (v: number): number => (Number.isNaN(v) ? Number.NEGATIVE_INFINITY : v)
/** v - max, where two equal infinities are no distance apart. */
const fromTop = (v: number, max: number): number => (v === max ? 0 : v - max)
/** Ids in falling order of their logits; ties in rising order of id. */
const likeliestFirst = (logits: Float64Array): number[] =>
  Array.from(logits, (_, id) => id).sort((a, b) => (logits[a] === logits[b] ? a - b : logits[a]! > logits[b]! ? -1 : 1))

/**
 * The tokens that a draw may give. Logits that are NaN count as -Infinity. Temperature: divides what a logit lies below the
 * greatest; at 0 (or NaN, or below), or where the greatest is infinite, only the likeliest token is kept. Then top-k: the k
 * likeliest. Then top-p: of those, likeliest first, a token is kept while what comes before it holds less than topP of
 * their probability. Then min-p: of those, the tokens at least minP as likely as the likeliest. The likeliest token is always kept.
 */
export function keptTokens(logits: Float64Array, { temperature, topK, topP, minP }: Filter): KeptToken[] {
  const values = logits.map(nanIsNever)
  const order = likeliestFirst(values)
  const max = values[order[0]!]!
  if (!(temperature > 0) || !Number.isFinite(max)) return [{ id: order[0]!, weight: 1 }]
  const ranked = order.slice(0, topK > 0 ? topK : order.length)
  const weights = ranked.map((id) => Math.exp((values[id]! - max) / temperature))
  const total = weights.reduce((a, b) => a + b, 0)
  let before = 0
  return ranked.flatMap((id, i) => {
    const weight = weights[i]!
    const inNucleus = !(topP < 1) || before < topP * total
    before += weight
    return i === 0 || (inNucleus && !(weight < minP)) ? [{ id, weight }] : []
  })
}

/**
 * An exponential race: token id has the waiting time -log(1 - u), and the token of the greatest weight / time wins (ties: the
 * lower id), which is token i with probability weight_i / sum of weights. u = min((word + 0.5) / 2^32, 1 - 2^-24), where word is
 * number floor(id / 16) mod 4 of Philox4x32-10 at the counter (16 · floor(id / 64) + id mod 16, token index, 0, 0) under the key
 * of the two seed words. No state and no order, so a draw is the same however the vocabulary is divided among threads.
 */
export function draw(kept: readonly KeptToken[], [seed0, seed1, index]: readonly [number, number, number]): number {
  let best = kept[0]!.id
  let bestRate = -1
  for (const { id, weight } of kept) {
    const word = philox([((id >>> 6) << 4) | (id & 15), index >>> 0, 0, 0], [seed0 >>> 0, seed1 >>> 0])[(id >>> 4) & 3]!
    const rate = weight / -Math.log1p(-Math.min((word + 0.5) / 2 ** 32, 1 - 2 ** -24))
    if (rate > bestRate || (rate === bestRate && id < best)) {
      best = id
      bestRate = rate
    }
  }
  return best
}

function logitShape(op: string, logits: Tensor): [number, number] {
  requireDtype(op, 'f32', { logits })
  requireShape(op, 'logits', logits, [-1, -1])
  requireThat(op, logits.dim(1) > 0, 'an empty vocabulary')
  return [logits.dim(0), logits.dim(1)]
}

/** The ids of each row: offsets [rows + 1] into ids. */
function lists(views: Views, op: string, offsets: Tensor, ids: Tensor, rows: number): number[][] {
  requireDtype(op, 'i32', { offsets, ids })
  requireShape(op, 'offsets', offsets, [rows + 1])
  const starts = views.read(offsets)
  const all = Array.from(views.read(ids))
  return Array.from({ length: rows }, (_, row) => {
    const [from, to] = [starts[row]!, starts[row + 1]!]
    requireThat(op, from >= 0 && from <= to && to <= all.length, `offsets ${from}, ${to} of ${all.length} ids`)
    return all.slice(from, to)
  })
}
