import { CleanUp } from './clean-up.ts'
import type { Decoder, Sink } from './decoders.ts'

export interface DecodeOptions {
  /** Leaves out tokens such as `<s>`. Default: true. */
  readonly skipSpecialTokens?: boolean
  /** Hugging Face's tidying of `" ."` to `"."` and the like, which changes what the model said. Default: false. */
  readonly cleanUpTokenizationSpaces?: boolean
}

/** What decoding needs of a tokenizer. */
export interface DecodingVocabulary {
  readonly decoder: Decoder
  /** The token as the decoder takes it; undefined for an id that has none. */
  decoderToken(id: number): string | undefined
  isSpecial(id: number): boolean
}

/**
 * Token ids to text as they come. What was given out never changes and never ends within a character; all of it
 * with `flush()` is exactly what decoding all the ids at once gives. Text whose reading depends on later tokens
 * waits for them. Ids without a token, as in the padding of a model's vocabulary, are nothing.
 *
 * ```ts
 * const decoder = tokenizer.incrementalDecoder()
 * for (const id of ids) process.stdout.write(decoder.push(id))
 * process.stdout.write(decoder.flush())
 * ```
 */
export class IncrementalDecoder {
  readonly #vocabulary: DecodingVocabulary
  readonly #skipSpecial: boolean
  readonly #cleanUp: CleanUp | undefined
  readonly #chain: Sink
  #text = ''

  constructor(vocabulary: DecodingVocabulary, options: DecodeOptions = {}) {
    this.#vocabulary = vocabulary
    this.#skipSpecial = options.skipSpecialTokens ?? true
    this.#cleanUp = options.cleanUpTokenizationSpaces === true ? new CleanUp() : undefined
    this.#chain = vocabulary.decoder.chain({
      text: (text) => {
        this.#text += text
      },
      end: () => {},
      finish: () => {},
    })
  }

  /** Text that is settled with this id. */
  push(id: number): string {
    const token = this.#vocabulary.decoderToken(id)
    if (token === undefined || (this.#skipSpecial && this.#vocabulary.isSpecial(id))) return ''
    this.#chain.text(token)
    this.#chain.end()
    return this.#take()
  }

  /** What is left when no id follows. The decoder is used up then. */
  flush(): string {
    this.#chain.finish()
    return this.#take() + (this.#cleanUp?.flush() ?? '')
  }

  #take(): string {
    const text = this.#text
    this.#text = ''
    return this.#cleanUp ? this.#cleanUp.push(text) : text
  }
}
