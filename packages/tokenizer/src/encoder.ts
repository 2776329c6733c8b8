import { type AddedToken, AddedTokenFinder } from './added-tokens.ts'
import { BYTE_TO_CHAR, toByteAlphabet } from './byte-alphabet.ts'
import { tokenizerError } from './errors.ts'
import type { Model } from './models/model.ts'
import type { Normalizer } from './normalizers.ts'
import type { PostProcessor } from './post-processors.ts'
import { BYTE_LEVEL, type Stage } from './pre-tokenizers.ts'
import { wellFormed } from './unicode.ts'
import { WordCache } from './word-cache.ts'

/** Pieces longer than this are encoded with pauses, in UTF-16 units. */
const LONG_PIECE = 4_096
/** Text between two pauses, in UTF-16 units. */
const PAUSE_EVERY = 2_048

export interface EncodeOptions {
  /** Those of the tokenizer's template, such as `<s>` in front. Default: true. */
  readonly addSpecialTokens?: boolean
  /** Whether `<s>` in the text is that token; otherwise it is plain text. Default: true. */
  readonly parseSpecialTokens?: boolean
  /** More tokens than this are an error, found early: the rest of the text is not looked at. */
  readonly maxTokens?: number
}

/** The parts of a tokenizer.json that turn text into ids. */
export interface EncoderParts {
  readonly addedTokens: readonly AddedToken[]
  readonly normalizer: Normalizer
  readonly stages: readonly Stage[]
  readonly model: Model
  readonly postProcessor: PostProcessor
  /** Whether normaliser, pre-tokeniser and added tokens leave all of a text there, in some form. */
  readonly keepsText: boolean
}

/** Text to ids: added tokens, normaliser, pre-tokeniser, model, post-processor. */
export class Encoder {
  readonly #parts: EncoderParts
  readonly #raw: AddedTokenFinder
  readonly #normalized: AddedTokenFinder
  readonly #stages: readonly Stage[]
  readonly #keepsLength: boolean
  readonly #usesFirst: boolean
  readonly #byteLevel: boolean
  readonly #words = new WordCache()
  readonly #cut: { readonly char: string; readonly not: ReadonlySet<string> } | undefined
  /** The most UTF-16 units that one token can stand for, where there is such a bound. */
  readonly #longestToken: number

  constructor(parts: EncoderParts) {
    this.#parts = parts
    this.#raw = new AddedTokenFinder(
      parts.addedTokens.filter((token) => !token.normalized),
      (text) => text,
    )
    this.#normalized = new AddedTokenFinder(
      parts.addedTokens.filter((token) => token.normalized),
      parts.normalizer,
    )
    this.#usesFirst = parts.stages.some((stage) => stage.kind === 'map' && stage.usesFirst)
    // Writing in the byte alphabet depends on the piece alone: done behind the cache, only for new words.
    this.#byteLevel = parts.stages.at(-1) === BYTE_LEVEL
    this.#stages = this.#byteLevel ? parts.stages.slice(0, -1) : parts.stages
    this.#cut = this.#byteLevel ? undefined : parts.model.cut
    const complete = this.#byteLevel ? BYTE_TO_CHAR.every((char) => parts.model.vocab.has(char)) : parts.model.byteFallback === true
    let longest = 0
    if (complete) for (const token of parts.model.vocab.keys()) longest = Math.max(longest, token.length)
    for (const { content } of parts.addedTokens) longest = Math.max(longest, content.length)
    this.#keepsLength = parts.keepsText && complete
    this.#longestToken = complete ? longest : Number.POSITIVE_INFINITY
  }

  /**
   * Fewest tokens that a text of this length can be, where the pieces are all of the text: a token stands for at most
   * so many characters, and no Unicode form shrinks text to less than a quarter.
   */
  #atLeast(length: number): number {
    return this.#keepsLength ? length / 4 / this.#longestToken : 0
  }

  /** Yields now and then: whoever drives it may let others run in between. */
  *encode(text: string, options: EncodeOptions): Generator<void, number[]> {
    const task = new EncodeTask(options.maxTokens ?? Number.POSITIVE_INFINITY)
    if (this.#atLeast(text.length) > task.limit) throw tooMany(task.limit)
    const skip = options.parseSpecialTokens === false ? (token: AddedToken) => token.special : () => false
    for (const part of this.#raw.split(wellFormed(text), 0, skip)) {
      if (part.id !== undefined) {
        task.ids.push(part.id)
        task.check()
        continue
      }
      for (const inner of this.#normalized.split(this.#parts.normalizer(part.text), 0, skip)) {
        if (inner.id === undefined) yield* this.#run(inner.text, inner.start === 0 && this.#first(part), 0, task)
        else task.ids.push(inner.id)
        task.check()
      }
    }
    if (options.addSpecialTokens === false) return task.ids
    const ids = this.#parts.postProcessor([task.ids]).flat()
    if (ids.length > task.limit) throw tooMany(task.limit)
    return ids
  }

  /** Whether the normalised part begins with what the whole text begins with: the normaliser may have dropped that. */
  #first(part: { readonly start: number; readonly text: string }): boolean {
    if (part.start > 0 || !this.#usesFirst) return part.start === 0
    const prefix = part.text.slice(0, 32)
    const width = prefix.codePointAt(0)! > 0xffff ? 2 : 1
    return this.#parts.normalizer(prefix) !== this.#parts.normalizer(prefix.slice(width))
  }

  *#run(text: string, first: boolean, from: number, task: EncodeTask): Generator<void> {
    let piece = text
    let index = from
    for (; index < this.#stages.length; index++) {
      const stage = this.#stages[index]!
      if (stage.kind === 'split') break
      piece = stage.map(piece, first)
    }
    const stage = this.#stages[index]
    if (stage?.kind !== 'split') {
      yield* this.#piece(piece, task)
      return
    }
    const last = index + 1 === this.#stages.length
    let leading = first
    for (const part of guarded(stage.split(piece), piece)) {
      if (last && part.length <= LONG_PIECE && !this.#cut) {
        this.#word(part, task.ids)
        if (task.due(part.length)) yield
      } else yield* this.#run(part, leading && piece.startsWith(part), index + 1, task)
      leading = false
    }
  }

  *#piece(piece: string, task: EncodeTask): Generator<void> {
    if (piece === '') return
    if (this.#cut) {
      for (const word of cutAt(piece, this.#cut.char, this.#cut.not)) {
        if (word.length > LONG_PIECE) yield* this.#long(word, task)
        else this.#word(word, task.ids)
        if (task.due(word.length)) yield
      }
    } else if (piece.length > LONG_PIECE) yield* this.#long(piece, task)
    else {
      this.#word(piece, task.ids)
      if (task.due(piece.length)) yield
    }
  }

  *#long(piece: string, task: EncodeTask): Generator<void> {
    if (task.ids.length + piece.length / this.#longestToken > task.limit) throw tooMany(task.limit)
    const { model } = this.#parts
    const text = this.#byteLevel ? toByteAlphabet(piece) : piece
    if (model.encodeSlowly) yield* model.encodeSlowly(text, task.ids)
    else model.encode(text, task.ids)
    task.check()
    yield
  }

  #word(word: string, out: number[]): void {
    const known = this.#words.get(word)
    if (known !== undefined) {
      for (let i = 0; i < known.length; i++) out.push(known[i]!)
      return
    }
    const ids: number[] = []
    this.#parts.model.encode(this.#byteLevel ? toByteAlphabet(word) : word, ids)
    this.#words.set(word, ids)
    for (const id of ids) out.push(id)
  }
}

/** What one call carries along. */
class EncodeTask {
  readonly ids: number[] = []
  readonly limit: number
  #since = 0

  constructor(limit: number) {
    this.limit = limit
  }

  check(): void {
    if (this.ids.length > this.limit) throw tooMany(this.limit)
  }

  /** Whether it is time for a pause. */
  due(units: number): boolean {
    this.#since += units
    if (this.#since < PAUSE_EVERY) return false
    this.#since = 0
    this.check()
    return true
  }
}

/** A regular expression gives up on a run of millions of characters without a break. */
function* guarded(parts: Iterable<string>, text: string): Generator<string> {
  try {
    yield* parts
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw tokenizerError(
      'BAD_TEXT',
      `The text of ${text.length.toLocaleString('en')} characters has a run without a break that is too long to be split into words. Break it up.`,
      { cause: error },
    )
  }
}

function* cutAt(text: string, char: string, not: ReadonlySet<string>): Generator<string> {
  let start = 0
  for (let at = text.indexOf(char, 1); at > 0; at = text.indexOf(char, at + 1)) {
    if (not.has(text[at - 1]!)) continue
    yield text.slice(start, at)
    start = at
  }
  yield text.slice(start)
}

const tooMany = (limit: number) =>
  tokenizerError('TOO_MANY_TOKENS', `The text is more than ${limit.toLocaleString('en')} tokens long. Shorten it, or raise the limit.`)
