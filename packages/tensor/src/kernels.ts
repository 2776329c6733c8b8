import type { PagedCache } from './cache.ts'
import type { Tensor } from './tensor.ts'
import type { PackedWeight } from './weight.ts'

/** Functions of one variable. `gelu` is the one with erf, `geluTanh` its tanh approximation, `relu2` the square of relu. */
export type Activation = 'silu' | 'gelu' | 'geluTanh' | 'relu' | 'relu2'
export const ACTIVATION_CODE: Readonly<Record<Activation, number>> = { silu: 0, gelu: 1, geluTanh: 2, relu: 3, relu2: 4 }

/** Which sequences a flat batch of tokens belongs to, and where their cache is. All tensors i32. */
export interface AttentionBatch {
  /** [tokens] page · PAGE_TOKENS + place, where each token's key and value go. */
  readonly slots: Tensor
  /** [sequences + 1] sequence s has the tokens queryStarts[s] … queryStarts[s + 1] of the batch. */
  readonly queryStarts: Tensor
  /** [sequences] tokens in the cache once this step's are written; the queries are the last of them. */
  readonly contextLengths: Tensor
  /** [sequences, maxPages] page of token t is column t / PAGE_TOKENS; columns that no query may look at hold 0. */
  readonly pageTables: Tensor
  /** No sequence has more queries, nor more context tokens: bounds that are known on the host. */
  readonly maxQueryLength: number
  readonly maxContextLength: number
}

export interface AttentionOptions {
  /** Multiplies q · k. */
  readonly scale: number
  /** A query at position p sees keys at positions > p - window; 0: all. */
  readonly window?: number
  /** scores = cap · tanh(scores / cap), before the mask; 0: off. */
  readonly softCap?: number
  /** f32 [heads]: adds slope · (key position - query position). */
  readonly alibiSlopes?: Tensor | undefined
  /** f32 [heads]: a logit that takes part in the softmax and has no value. */
  readonly sinks?: Tensor | undefined
}

export interface RotaryOptions {
  /** false: halves (NeoX, Llama); true: neighbouring pairs (GPT-J). */
  readonly interleaved?: boolean
  /**
   * i32 [tokens] and a bound: tokens whose selector exceeds the bound read the table's second half of rows
   * (positions + rows / 2). LongRoPE and dynamic NTK choose by the length of a sequence's prompt.
   */
  readonly selector?: Tensor | undefined
  readonly bound?: number
}

/** How rows of logits become tokens: one entry a row. */
export interface SamplingBatch {
  /** f32 [rows]; 0 takes the most likely token. */
  readonly temperature: Tensor
  /** i32 [rows]; 0: all. */
  readonly topK: Tensor
  /** f32 [rows]; 1: all. */
  readonly topP: Tensor
  /** f32 [rows]; 0: all. */
  readonly minP: Tensor
  /** i32 [rows, 3]: two words of the seed, and the index of the token in its sequence. Same words, same draw, in any batch. */
  readonly seeds: Tensor
}

/** Tokens that a row has seen. Offsets are [rows + 1] into ids. All i32. */
export interface TokenHistory {
  readonly promptOffsets: Tensor
  readonly promptIds: Tensor
  readonly outputOffsets: Tensor
  readonly outputIds: Tensor
}

/** Penalties of each row, f32 [rows]; 1, 0, 0: none. */
export interface Penalties {
  readonly repetition: Tensor
  readonly presence: Tensor
  readonly frequency: Tensor
}

/**
 * What a backend provides. Ops write to their first argument, never allocate, and only enqueue. Unless it says otherwise
 * an op takes f32, f16 and bf16 (all its float tensors of one type), computes in f32 and rounds once, to nearest even.
 * The last dimension is contiguous; the leading stride may be anything. `out` may be `x` where both have one shape.
 * **Batch-invariant** on the CPU and the reference device: a row of the result has the same bits whatever other rows are in the batch.
 * On CUDA kernels are chosen by the size of the batch: the same batch repeats itself bit by bit, other batches differ by rounding.
 */
export interface Kernels {
  /** out [m, n] = x [m, k] · weight [n, k]ᵀ (+ bias [n]). out and x may have different float types; sums are f32. */
  linear(out: Tensor, x: Tensor, weight: PackedWeight, bias?: Tensor): void
  /** out [tokens, k] = rows of the table; ids i32. Zeros where id - firstRow is outside [0, table.outFeatures). */
  embedding(out: Tensor, ids: Tensor, table: PackedWeight, firstRow: number): void
  /** out [n, k] = x[rows[i]]; rows i32 [n]. */
  gatherRows(out: Tensor, x: Tensor, rows: Tensor): void
  /**
   * ids[i] = lastTokens[sources[i]] where sources[i] is an index of lastTokens; where it is none (−1), ids[i] stays. All i32;
   * ids and sources [n], lastTokens [m]. A step can so be enqueued before the host knows the tokens of the one before.
   */
  feedTokens(ids: Tensor, lastTokens: Tensor, sources: Tensor): void

  /**
   * out = x / sqrt(mean(x²) + eps) · (weight + weightOffset), over the last dimension. Gemma's offset is 1. x may be f32 where
   * out and weight are not.
   */
  rmsNorm(out: Tensor, x: Tensor, weight: Tensor, eps: number, weightOffset: number): void
  /**
   * residual += x; out = rmsNorm(residual). The sum is rounded to residual's type first. residual may be f32 where the others are
   * not: what a model of many layers adds up then keeps its last bits.
   */
  addRmsNorm(out: Tensor, residual: Tensor, x: Tensor, weight: Tensor, eps: number, weightOffset: number): void
  /** out = (x - mean) / sqrt(variance + eps) · weight + bias, over the last dimension. */
  layerNorm(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | undefined, eps: number): void

  /** out = a + b. */
  add(out: Tensor, a: Tensor, b: Tensor): void
  /** out = x · factor. */
  scale(out: Tensor, x: Tensor, factor: number): void
  /** out = cap · tanh(x / cap). */
  softCap(out: Tensor, x: Tensor, cap: number): void
  /** out = activation(x). */
  activate(out: Tensor, x: Tensor, activation: Activation): void
  /** out [m, n] = activation(x[:, :n]) · x[:, n:], x [m, 2n]. */
  activateAndMul(out: Tensor, x: Tensor, activation: Activation): void
  /** out = x, converting between float types; or i32 to i32. */
  copy(out: Tensor, x: Tensor): void
  fill(out: Tensor, value: number): void

  /**
   * Rotates q [tokens, heads, dim] and k [tokens, kvHeads, dim] in place. cosSin f32 [rows, rotaryDim]: cos then sin of
   * rotaryDim / 2 angles; dimensions from rotaryDim on stay as they are. positions i32 [tokens].
   */
  rotary(q: Tensor, k: Tensor, positions: Tensor, cosSin: Tensor, options: RotaryOptions): void
  /** Puts k [tokens, kvHeads, keyDim] and v [tokens, kvHeads, valueDim] into their slots, converting to the cache's type. */
  writeCache(cache: PagedCache, k: Tensor, v: Tensor, slots: Tensor): void
  /** out [tokens, heads · valueDim] = causal softmax(q · keysᵀ) · values; q [tokens, heads, keyDim]; head h reads kv head h · kvHeads / heads. */
  pagedAttention(out: Tensor, q: Tensor, cache: PagedCache, batch: AttentionBatch, options: AttentionOptions): void

  /**
   * In place on logits f32 [rows, vocab]: repetition (over prompt and output ids: positive logits divided, others
   * multiplied), then presence and frequency (over output ids).
   */
  penalize(logits: Tensor, penalties: Penalties, history: TokenHistory): void
  /** logits[row, id] += value for each entry; offsets i32 [rows + 1], ids i32, values f32 (-Infinity bans a token). */
  addSparse(logits: Tensor, offsets: Tensor, ids: Tensor, values: Tensor): void
  /**
   * tokens i32 [rows] = a draw from each row of logits f32 [rows, vocab], which are left as they are. NaN counts as -Infinity.
   * Temperature 0, or a greatest logit that is not finite: the likeliest token. Otherwise token i has the weight
   * exp((logit_i - greatest) / temperature), and may be drawn if it passes, in this order: top-k, the k likeliest; top-p,
   * likeliest first while what comes before holds less than topP of the weight of those; min-p, at least minP of the likeliest's
   * weight. The likeliest always passes; ties go to the lower id.
   * The draw is a race that every device can run alike: token i arrives after -log(1 - u_i) / weight_i, the first one wins, with
   * u_i = min((word + 0.5) / 2^32, 1 - 2^-24) and word = number (i / 16) mod 4 of Philox4x32-10 at the counter
   * (16 · (i / 64) + i mod 16, seeds[2], 0, 0) under the key (seeds[0], seeds[1]); divisions here are of integers.
   */
  sample(tokens: Tensor, logits: Tensor, batch: SamplingBatch): void
  /**
   * The log-probabilities of rows of logits f32 [rows, vocab] (natural logarithm of softmax): values f32 [rows, n + 1] and
   * ids i32 [rows, n + 1] hold the chosen token, then the n most likely in falling order; ranks i32 [rows] the chosen one's
   * place, 1 for the most likely. chosen i32 [rows].
   */
  logProbs(values: Tensor, ids: Tensor, ranks: Tensor, logits: Tensor, chosen: Tensor): void
}
