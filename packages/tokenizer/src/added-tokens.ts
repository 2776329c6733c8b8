import { bad, type JsonNode } from './json.ts'
import type { Normalizer } from './normalizers.ts'
import { SPACE, WORD_JOINED } from './regex-classes.ts'
import { trailingSpace } from './unicode.ts'

/** A token that is found in the text before anything else happens to it. */
export interface AddedToken {
  readonly id: number
  readonly content: string
  readonly singleWord: boolean
  readonly lstrip: boolean
  readonly rstrip: boolean
  /** Looked for in the normalised text, not in the raw one. */
  readonly normalized: boolean
  readonly special: boolean
}

/** Part of a text: an added token or what lies between. */
export interface Part {
  readonly text: string
  readonly id?: number
  /** Where in the raw text the part begins. */
  readonly start: number
}

/** The `added_tokens` of a tokenizer.json. A token of the model's vocabulary keeps the id it has there. */
export function readAddedTokens(node: JsonNode, vocab: ReadonlyMap<string, number>): AddedToken[] {
  if (!node.has('added_tokens')) return []
  const tokens = new Map<string, AddedToken>()
  let nextId = vocab.size
  const entries = node.nodes('added_tokens').map((entry) => ({ entry, id: entry.integer('id') }))
  for (const { entry, id: written } of entries.sort((a, b) => a.id - b.id)) {
    const content = entry.string('content')
    if (content === '') continue
    if (written > 2 ** 24) throw bad(entry.at('id'), `is ${written}, too large for an id`)
    const id = vocab.get(content) ?? tokens.get(content)?.id ?? Math.max(nextId, 0)
    if (id === nextId) nextId++
    const special = entry.boolean('special', false)
    tokens.set(content, {
      id,
      content,
      special,
      singleWord: entry.boolean('single_word', false),
      lstrip: entry.boolean('lstrip', false),
      rstrip: entry.boolean('rstrip', false),
      normalized: entry.boolean('normalized', !special),
    })
  }
  return [...tokens.values()]
}

interface Node {
  readonly next: Map<number, Node>
  token: AddedToken | undefined
}

/** Finds added tokens: at each place the longest, whole words only where asked. */
export class AddedTokenFinder {
  readonly #root: Node = { next: new Map(), token: undefined }
  /** Whether a pattern begins with this UTF-16 unit. */
  readonly #begins = new Uint8Array(0x10000)
  readonly #empty: boolean

  /** @param normalize what the patterns go through themselves */
  constructor(tokens: readonly AddedToken[], normalize: Normalizer) {
    let count = 0
    for (const token of tokens) {
      const pattern = normalize(token.content)
      if (pattern === '') continue
      count++
      let at = this.#root
      for (let i = 0; i < pattern.length; i++) {
        const unit = pattern.charCodeAt(i)
        let next = at.next.get(unit)
        if (!next) {
          next = { next: new Map(), token: undefined }
          at.next.set(unit, next)
        }
        at = next
      }
      at.token ??= token
      this.#begins[pattern.charCodeAt(0)] = 1
    }
    this.#empty = count === 0
  }

  /**
   * @param start of `text` in the raw text
   * @param skip tokens that are text here
   */
  *split(text: string, start: number, skip: (token: AddedToken) => boolean): Generator<Part> {
    let done = 0
    if (!this.#empty)
      for (let at = 0; at < text.length; ) {
        if (this.#begins[text.charCodeAt(at)] === 0) {
          at++
          continue
        }
        const found = this.#longest(text, at)
        if (!found) {
          at++
          continue
        }
        let from = at
        let to = found.end
        at = found.end
        const { token } = found
        if (skip(token) || (token.singleWord && !isWord(text, from, to))) continue
        if (token.lstrip) from = Math.max(trailingSpace(text.slice(done, from)) + done, done)
        if (token.rstrip) to += spaceAt(text, to)
        if (from > done) yield { text: text.slice(done, from), start: start + done }
        yield { text: text.slice(from, to), id: token.id, start: start + from }
        done = to
      }
    if (done < text.length) yield { text: text.slice(done), start: start + done }
  }

  #longest(text: string, at: number): { token: AddedToken; end: number } | undefined {
    let node: Node | undefined = this.#root
    let found: { token: AddedToken; end: number } | undefined
    for (let i = at; i < text.length; ) {
      node = node.next.get(text.charCodeAt(i++))
      if (!node) break
      if (node.token) found = { token: node.token, end: i }
    }
    return found
  }
}

const ENDS_WITH_WORD = new RegExp(`[${WORD_JOINED}]$`, 'v')
const STARTS_WITH_WORD = new RegExp(`^[${WORD_JOINED}]`, 'v')
const SPACES = new RegExp(`[${SPACE}]*`, 'yv')

const isWord = (text: string, from: number, to: number): boolean =>
  !ENDS_WITH_WORD.test(text.slice(Math.max(0, from - 2), from)) && !STARTS_WITH_WORD.test(text.slice(to, to + 2))

function spaceAt(text: string, at: number): number {
  SPACES.lastIndex = at
  return SPACES.exec(text)![0].length
}
