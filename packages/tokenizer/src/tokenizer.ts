import { setImmediate } from 'node:timers/promises'
import { type AddedToken, readAddedTokens } from './added-tokens.ts'
import { ChatTemplate } from './chat-template.ts'
import { readTokenizerConfig, type TokenizerConfig } from './config.ts'
import { type Decoder, JOIN_WITH_SPACES, readDecoder, tokenBytes } from './decoders.ts'
import { type EncodeOptions, Encoder } from './encoder.ts'
import { tokenizerError } from './errors.ts'
import { noTokenizer, parseJson, readJson, readText } from './folder.ts'
import { type DecodeOptions, type DecodingVocabulary, IncrementalDecoder } from './incremental-decoder.ts'
import { bad, JsonNode } from './json.ts'
import { type Model, readModel } from './models/model.ts'
import { readNormalizer } from './normalizers.ts'
import { readPostProcessor } from './post-processors.ts'
import { readPreTokenizer } from './pre-tokenizers.ts'
import { templateVariables } from './template-files.ts'
import { decodeUtf8 } from './utf8.ts'

/** How long `encodeAsync` works before it lets others run, in milliseconds. */
const SLICE_MS = 4

/** One token's own text, and its bytes where they may be only part of a character. */
export interface TokenText {
  /** Bytes that are no character are U+FFFD here. */
  readonly token: string
  readonly bytes: readonly number[]
}

/**
 * A Hugging Face tokenizer.json: text to token ids and back, synchronously.
 * `truncation` and `padding` of the file are not applied, as in transformers.
 */
export class Tokenizer implements DecodingVocabulary {
  readonly decoder: Decoder
  readonly config: TokenizerConfig
  readonly addedTokens: readonly AddedToken[]
  /** How many tokens there are, added ones included. A model's own vocabulary may be padded to more. */
  readonly vocabSize: number
  readonly #tokens: readonly (string | undefined)[]
  readonly #model: Model
  readonly #added: ReadonlyMap<string, number>
  readonly #special: ReadonlySet<number>
  readonly #normalized = new Map<number, string>()
  readonly #encoder: Encoder

  /**
   * Reads tokenizer.json, and tokenizer_config.json where there is one.
   * @throws NO_TOKENIZER, BAD_TOKENIZER
   */
  static fromFolder(folder: string): Tokenizer {
    const text = readText(folder, 'tokenizer.json')
    if (text === undefined) throw noTokenizer(folder)
    return new Tokenizer(
      parseJson(text, `${folder}/tokenizer.json`),
      readTokenizerConfig(readJson(folder, 'tokenizer_config.json'), readJson(folder, 'special_tokens_map.json')),
    )
  }

  /**
   * @param tokenizerJson the parsed tokenizer.json, or its text
   * @param config the parsed tokenizer_config.json
   * @throws BAD_TOKENIZER
   */
  static fromJSON(tokenizerJson: unknown, config?: unknown): Tokenizer {
    const json = typeof tokenizerJson === 'string' ? parseJson(tokenizerJson, 'tokenizer.json') : tokenizerJson
    return new Tokenizer(json, readTokenizerConfig(config))
  }

  private constructor(json: unknown, config: TokenizerConfig) {
    const root = new JsonNode(json, 'tokenizer.json')
    if (!root.has('model')) throw bad('tokenizer.json', 'has no "model": it is no tokenizer of Hugging Face\'s tokenizers library')
    const model = readModel(root.node('model'))
    this.config = config
    this.addedTokens = readAddedTokens(root, model.vocab)
    this.decoder = root.has('decoder') ? readDecoder(root.node('decoder')) : JOIN_WITH_SPACES
    const normalizer = root.has('normalizer') ? readNormalizer(root.node('normalizer')) : (text: string) => text
    this.#encoder = new Encoder({
      addedTokens: this.addedTokens,
      normalizer,
      stages: root.has('pre_tokenizer') ? readPreTokenizer(root.node('pre_tokenizer')) : [],
      model,
      keepsText: keepsText(root, this.addedTokens),
      postProcessor: root.has('post_processor') ? readPostProcessor(root.node('post_processor')) : (lists) => lists,
    })
    // Tokens that are looked for in normalised text are decoded from that form, as the decoder undoes the normaliser.
    for (const { id, content, normalized } of this.addedTokens) if (normalized) this.#normalized.set(id, normalizer(content))
    let size = model.vocab.size
    for (const { content } of this.addedTokens) if (!model.vocab.has(content)) size++
    this.vocabSize = size
    const tokens = new Array<string | undefined>(size)
    for (const [token, id] of model.vocab) tokens[id] = token
    for (const { content, id } of this.addedTokens) tokens[id] = content
    this.#tokens = tokens
    this.#model = model
    this.#added = new Map(this.addedTokens.map(({ content, id }) => [content, id]))
    this.#special = new Set(this.addedTokens.filter((token) => token.special).map((token) => token.id))
  }

  /**
   * The ids of a text. About a megabyte a second: for prompts of more than a few kilobytes in a server use
   * `encodeAsync`.
   * @throws TOO_MANY_TOKENS more than `maxTokens`; BAD_TEXT the model knows no token for it and no unknown token
   */
  encode(text: string, options: EncodeOptions = {}): number[] {
    const steps = this.#encoder.encode(text, options)
    for (;;) {
      const { done, value } = steps.next()
      if (done) return value
    }
  }

  /** The same with pauses, so that the event loop is never held for more than a few milliseconds. */
  async encodeAsync(text: string, options: EncodeOptions & { readonly signal?: AbortSignal } = {}): Promise<number[]> {
    const steps = this.#encoder.encode(text, options)
    let until = performance.now() + SLICE_MS
    for (;;) {
      const { done, value } = steps.next()
      if (done) return value
      if (performance.now() < until) continue
      await setImmediate()
      options.signal?.throwIfAborted()
      until = performance.now() + SLICE_MS
    }
  }

  /**
   * The text of ids.
   * @throws TOKEN_ID one of them has no token
   */
  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    const decoder = new IncrementalDecoder(this, options)
    const parts: string[] = []
    for (const id of ids) {
      if (this.idToToken(id) === undefined) throw this.#noToken(id)
      parts.push(decoder.push(id))
    }
    parts.push(decoder.flush())
    return parts.join('')
  }

  /** For ids that come one by one. */
  incrementalDecoder(options: DecodeOptions = {}): IncrementalDecoder {
    return new IncrementalDecoder(this, options)
  }

  /** The token as the vocabulary writes it, such as `Ġthe`. */
  idToToken(id: number): string | undefined {
    return this.#tokens[id]
  }

  decoderToken(id: number): string | undefined {
    return this.#normalized.get(id) ?? this.#tokens[id]
  }

  tokenToId(token: string): number | undefined {
    return this.#added.get(token) ?? this.#model.vocab.get(token)
  }

  isSpecial(id: number): boolean {
    return this.#special.has(id)
  }

  /** Ids of all special tokens. */
  get specialTokenIds(): ReadonlySet<number> {
    return this.#special
  }

  /** A named special token of tokenizer_config.json, such as `bos_token`. */
  specialToken(name: string): { readonly token: string; readonly id: number } | undefined {
    const token = this.config.specialTokens.get(name)
    const id = token === undefined ? undefined : this.tokenToId(token)
    return token === undefined || id === undefined ? undefined : { token, id }
  }

  /** A chat template with this tokenizer's special tokens as its variables. */
  chatTemplate(source: string | Readonly<Record<string, string>>): ChatTemplate {
    return new ChatTemplate(source, templateVariables(this.config))
  }

  /**
   * What one token adds in the middle of a text: `" the"`, or bytes that are part of a character. Empty for an id without a token, as in
   * the padding of a model's vocabulary.
   * @throws TOKEN_ID it is no integer from 0
   */
  tokenText(id: number): TokenText {
    if (!Number.isInteger(id) || id < 0) throw this.#noToken(id)
    const token = this.decoderToken(id)
    if (token === undefined) return { token: '', bytes: [] }
    const bytes = tokenBytes(this.decoder.token(token))
    return { token: decodeUtf8(bytes), bytes }
  }

  #noToken(id: number) {
    return tokenizerError(
      'TOKEN_ID',
      `${String(id)} is no token id of this tokenizer, which has ${this.vocabSize} tokens from 0 to ${this.#tokens.length - 1}`,
    )
  }
}

/** Whether nothing in the file takes text away before the model sees it. Careful: false when in doubt. */
function keepsText(root: JsonNode, added: readonly AddedToken[]): boolean {
  const normalizer = root.has('normalizer') ? parts(root.node('normalizer'), 'normalizers') : []
  const preTokenizer = root.has('pre_tokenizer') ? parts(root.node('pre_tokenizer'), 'pretokenizers') : []
  return (
    normalizer.every((node) => ['NFC', 'ByteLevel', 'Prepend'].includes(node.string('type')) || replacesByNoLess(node)) &&
    preTokenizer.every(
      (node) =>
        ['ByteLevel', 'Metaspace', 'Digits'].includes(node.string('type')) ||
        (node.string('type') === 'Split' && node.get('behavior') !== 'Removed'),
    ) &&
    added.every((token) => !token.lstrip && !token.rstrip)
  )
}

function replacesByNoLess(node: JsonNode): boolean {
  const pattern = node.get('pattern') as { String?: unknown } | undefined
  return node.string('type') === 'Replace' && typeof pattern?.String === 'string' && pattern.String.length <= node.string('content').length
}

const parts = (node: JsonNode, key: string): JsonNode[] =>
  node.get('type') === 'Sequence' ? node.nodes(key).flatMap((part) => parts(part, key)) : [node]
