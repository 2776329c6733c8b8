import type { Communicator, FloatDType, Tensor } from '@aphrodite/tensor'
import { layersError, materializedTwice, notMaterialized } from './errors.ts'
import { type Env, Layer } from './module.ts'
import { materializeLinear } from './quantization/materialize.ts'
import type { LinearMethod, LinearWeights } from './quantization/method.ts'
import { wholeOf } from './sharding.ts'
import type { Step } from './step.ts'
import type { Range, WeightMap } from './weights.ts'

/** The rows of a vocabulary that a rank holds. Every rank has equally many; what is beyond the vocabulary stays zero. */
function vocabularyShare(vocab: number, { rank, size }: Communicator): { rows: number; from: Range } {
  const rows = Math.ceil(vocab / size)
  const start = Math.min(rank * rows, vocab)
  return { rows, from: { start, length: Math.min(rows, vocab - start) } }
}

interface Vocabulary {
  readonly weights: LinearWeights
  readonly rows: number
  readonly tp: Communicator
  readonly dtype: FloatDType
}

function materializeVocabulary(
  path: string,
  vocab: number,
  dim: number,
  method: LinearMethod | undefined,
  env: Env,
  map: WeightMap,
): Vocabulary {
  const { rows, from } = vocabularyShare(vocab, env.tp)
  const parts = [{ path, outFeatures: vocab, from, row: 0 }]
  const weights = materializeLinear({ path, inFeatures: dim, input: wholeOf(dim), parts, rows }, env, map, method)
  return { weights, rows, tp: env.tp, dtype: env.dtype }
}

export interface VocabParallelEmbeddingOptions {
  /** Multiplies the vectors, after it has been rounded to their dtype. Default 1. Gemma's is √hidden. */
  readonly scale?: number
  readonly linearMethod?: LinearMethod | undefined
}

/** A vector for every token of the vocabulary, shared among the ranks by tokens. */
export class VocabParallelEmbedding extends Layer {
  readonly vocab: number
  readonly dim: number
  readonly #options: VocabParallelEmbeddingOptions
  #table: Vocabulary | undefined
  #factor = 1
  #path = ''

  constructor(vocab: number, dim: number, options: VocabParallelEmbeddingOptions = {}) {
    super()
    this.vocab = vocab
    this.dim = dim
    this.#options = options
  }

  materialize(path: string, env: Env, weights: WeightMap): void {
    if (this.#table) throw materializedTwice(this, this.#path, path)
    this.#path = path
    this.#table = materializeVocabulary(path, this.vocab, this.dim, this.#options.linearMethod, env, weights)
    this.#factor = roundedTo(this.#options.scale ?? 1, env)
  }

  /** The model's dtype. */
  get dtype(): FloatDType {
    return this.table.dtype
  }

  /** ids i32 [tokens] → [tokens, dim] of the model's dtype, or of another one: in f32 a scaled vector is not rounded. */
  forward(ids: Tensor, dtype: FloatDType = this.dtype): Tensor {
    const { weights, rows, tp } = this.table
    if (!weights.embed) throw layersError('BAD_LAYER', `${this.#path}: the quantisation of this embedding cannot look up rows`)
    const out = ids.empty([ids.dim(0), this.dim], dtype)
    weights.embed(out, ids, tp.rank * rows)
    if (tp.size > 1) tp.allReduce(out)
    if (this.#factor !== 1) out.kernels.scale(out, out, this.#factor)
    return out
  }

  /** What a head that is tied to this embedding multiplies with. */
  get table(): Vocabulary {
    if (!this.#table) throw notMaterialized(this, `[${this.vocab}, ${this.dim}]`)
    return this.#table
  }
}

export interface ParallelLMHeadOptions {
  readonly bias?: boolean
  /** Shares the embedding's table; a matrix of its own in the checkpoint is not read. */
  readonly tiedTo?: VocabParallelEmbedding | undefined
  readonly linearMethod?: LinearMethod | undefined
}

/** From hidden states to logits, shared among the ranks by tokens of the vocabulary. */
export class ParallelLMHead extends Layer {
  readonly vocab: number
  readonly dim: number
  readonly #options: ParallelLMHeadOptions
  #own: Vocabulary | undefined
  #bias: Tensor | undefined
  #path: string | undefined

  constructor(vocab: number, dim: number, options: ParallelLMHeadOptions = {}) {
    super()
    this.vocab = vocab
    this.dim = dim
    this.#options = options
    const { tiedTo } = options
    if (tiedTo && (tiedTo.vocab !== vocab || tiedTo.dim !== dim))
      throw layersError('BAD_LAYER', `a head of [${vocab}, ${dim}] cannot be tied to an embedding of [${tiedTo.vocab}, ${tiedTo.dim}]`)
  }

  materialize(path: string, env: Env, weights: WeightMap): void {
    if (this.#path !== undefined) throw materializedTwice(this, this.#path, path)
    this.#path = path
    const { tiedTo, bias, linearMethod } = this.#options
    if (tiedTo) weights.ignore(`${path}.weight`)
    else this.#own = materializeVocabulary(path, this.vocab, this.dim, linearMethod, env, weights)
    if (!bias) return
    const { rows, from } = vocabularyShare(this.vocab, env.tp)
    this.#bias = env.arena.empty([rows], env.dtype)
    weights.expectTensor(`${path}.bias`, this.#bias.narrow(0, 0, from.length), [this.vocab], [from])
  }

  /** hidden [tokens, dim] → f32 [step.logitRows, vocab] */
  logits(hidden: Tensor, step: Step): Tensor {
    const { weights, rows, tp } = this.#own ?? this.#tied
    const n = step.logitRows.dim(0)
    const x = hidden.empty([n, this.dim])
    hidden.kernels.gatherRows(x, hidden, step.logitRows)
    const local = x.empty([n, rows], 'f32')
    weights.apply(local, x, this.#bias)
    if (tp.size === 1) return local
    const all = local.empty([n, rows * tp.size])
    tp.allGather(all, local)
    return all.narrow(1, 0, this.vocab)
  }

  get #tied(): Vocabulary {
    if (!this.#options.tiedTo) throw notMaterialized(this, `[${this.vocab}, ${this.dim}]`)
    return this.#options.tiedTo.table
  }
}

/** A number as the device rounds it to the model's dtype. */
function roundedTo(value: number, env: Env): number {
  const t = env.arena.empty([1], env.dtype)
  env.device.upload(t, Float32Array.of(value))
  return env.device.download(t)[0]!
}
