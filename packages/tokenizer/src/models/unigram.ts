import { tokenizerError } from '../errors.ts'
import { bad, type JsonNode } from '../json.ts'
import { utf8Bytes } from '../utf8.ts'
import type { Model } from './model.ts'

/** What an unknown character costs more than the least likely token. */
const UNKNOWN_PENALTY = 10

interface Node {
  readonly next: Map<number, Node>
  id: number
}

/** The most likely cut of a piece into tokens: Viterbi over a trie of the vocabulary. */
export function readUnigram(node: JsonNode): Model {
  const vocab = new Map<string, number>()
  const scores: number[] = []
  const root: Node = { next: new Map(), id: -1 }
  let least = Number.POSITIVE_INFINITY
  for (const [id, entry] of node.array('vocab').entries()) {
    if (!Array.isArray(entry) || typeof entry[0] !== 'string' || typeof entry[1] !== 'number')
      throw bad(`${node.at('vocab')}[${id}]`, 'must be a token and its score')
    const [token, score] = entry as [string, number]
    vocab.set(token, id)
    scores.push(score)
    least = Math.min(least, score)
    let at = root
    for (let i = 0; i < token.length; i++) {
      const unit = token.charCodeAt(i)
      let next = at.next.get(unit)
      if (!next) {
        next = { next: new Map(), id: -1 }
        at.next.set(unit, next)
      }
      at = next
    }
    if (token !== '') at.id = id
  }
  const unknown = node.has('unk_id') ? node.integer('unk_id') : undefined
  if (unknown !== undefined && unknown >= scores.length)
    throw bad(node.at('unk_id'), `is ${unknown}, but the vocabulary has ${scores.length} tokens`)
  const byteIds = node.boolean('byte_fallback', false) ? byteTokens(vocab) : undefined
  const unknownScore = least - UNKNOWN_PENALTY

  function* viterbi(piece: string, out: number[]): Generator<void> {
    const size = piece.length
    const best = new Float64Array(size + 1)
    const from = new Int32Array(size + 1).fill(-1)
    const ids = new Int32Array(size + 1)
    for (let start = 0; start < size; ) {
      if ((start & 0xffff) === 0xffff) yield
      const width = piece.codePointAt(start)! > 0xffff ? 2 : 1
      const sofar = best[start]!
      let single = false
      let at: Node | undefined = root
      for (let end = start; end < size; ) {
        at = at.next.get(piece.charCodeAt(end++))
        if (!at) break
        if (at.id < 0) continue
        const score = scores[at.id]! + sofar
        if (from[end]! < 0 || score > best[end]!) {
          best[end] = score
          from[end] = start
          ids[end] = at.id
        }
        if (end - start === width) single = true
      }
      if (!single) {
        const end = start + width
        const score = unknownScore + sofar
        if (from[end]! < 0 || score > best[end]!) {
          if (unknown === undefined) throw missingUnknown(piece.slice(start, end))
          best[end] = score
          from[end] = start
          ids[end] = unknown
        }
      }
      start += width
    }
    // Back along the best path; neighbouring unknown characters are one token.
    const begin = out.length
    for (let end = size; end > 0; ) {
      let start = from[end]!
      if (ids[end] === unknown) {
        while (start > 0 && ids[start] === unknown) start = from[start]!
        pushUnknown(piece.slice(start, end), out)
      } else out.push(ids[end]!)
      end = start
    }
    reverseFrom(out, begin)
  }

  /** Appends in reverse: the caller turns the whole around. */
  const pushUnknown = (text: string, out: number[]): void => {
    const id = vocab.get(text)
    const bytes = id === undefined && byteIds ? utf8Bytes(text).map((byte) => byteIds[byte]!) : undefined
    if (bytes?.every((byte) => byte >= 0)) out.push(...bytes.reverse())
    else out.push(id ?? unknown!)
  }

  return {
    vocab,
    encode(piece, out) {
      for (const _ of viterbi(piece, out)) {
        // to the end at once
      }
    },
    encodeSlowly: viterbi,
  }
}

/** The id of each byte's token `<0x00>` … `<0xFF>`, -1 where the vocabulary has none. */
export function byteTokens(vocab: ReadonlyMap<string, number>): Int32Array {
  return Int32Array.from({ length: 256 }, (_, byte) => vocab.get(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`) ?? -1)
}

function reverseFrom(list: number[], begin: number): void {
  for (let i = begin, j = list.length - 1; i < j; i++, j--) {
    const x = list[i]!
    list[i] = list[j]!
    list[j] = x
  }
}

const missingUnknown = (char: string) =>
  tokenizerError('BAD_TEXT', `${JSON.stringify(char)} is not in the vocabulary, and tokenizer.json's model has no unk_id`)
