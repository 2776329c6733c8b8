import { bad, type JsonNode } from '../json.ts'
import { utf8Bytes } from '../utf8.ts'
import { heapMerge, scanMerge } from './bpe-merge.ts'
import { MergeTable } from './merge-table.ts'
import { type Model, readVocab } from './model.ts'
import { byteTokens } from './unigram.ts'

/** Up to this many symbols looking for the best pair again after every merge is faster than a heap. */
const SCAN_LIMIT = 48

/**
 * Byte-pair encoding: characters are symbols, and the neighbouring pair that was learnt first is merged until none
 * is left. `dropout`, a means of training, is not applied.
 */
export function readBpe(node: JsonNode): Model {
  const vocab = readVocab(node)
  const prefix = node.optionalString('continuing_subword_prefix') ?? ''
  const suffix = node.optionalString('end_of_word_suffix') ?? ''
  const ignoreMerges = node.boolean('ignore_merges', false)
  const fuseUnknown = node.boolean('fuse_unk', false)
  const byteIds = node.boolean('byte_fallback', false) ? byteTokens(vocab) : undefined
  const unknown = readUnknown(node, vocab)
  const merges = readMerges(node, vocab, prefix.length)

  // Most symbols are single UTF-16 units; a table is quicker than a map of strings.
  const unitIds = new Int32Array(0x10000).fill(-1)
  for (const [token, id] of vocab) if (token.length === 1) unitIds[token.charCodeAt(0)] = id
  const affixed = prefix !== '' || suffix !== ''

  const symbolId = (char: string, first: boolean, last: boolean): number => {
    if (affixed) return vocab.get((first ? '' : prefix) + char + (last ? suffix : '')) ?? -1
    return char.length === 1 ? unitIds[char.charCodeAt(0)]! : (vocab.get(char) ?? -1)
  }

  /** Bytes of a character without token, if all of them have one. */
  const fallback = (char: string, first: boolean, last: boolean): number[] | undefined => {
    if (!byteIds) return undefined
    const ids = utf8Bytes((first ? '' : prefix) + char + (last ? suffix : '')).map((byte) => byteIds[byte]!)
    return ids.every((id) => id >= 0) ? ids : undefined
  }

  const symbols = (piece: string, out: number[]): void => {
    // An unknown character waits: the next may be fused with it. Bytes go in before it, as in Hugging Face's code.
    let waiting = false
    for (let at = 0; at < piece.length; ) {
      let id = affixed ? -1 : unitIds[piece.charCodeAt(at)]!
      let end = at + 1
      if (id < 0) {
        const char = String.fromCodePoint(piece.codePointAt(at)!)
        end = at + char.length
        const first = at === 0
        const last = end === piece.length
        id = symbolId(char, first, last)
        if (id < 0) {
          const bytes = fallback(char, first, last)
          if (bytes) out.push(...bytes)
          else if (unknown !== undefined) {
            if (waiting && !fuseUnknown) out.push(unknown)
            waiting = true
          }
          at = end
          continue
        }
      }
      if (waiting) out.push(unknown!)
      waiting = false
      out.push(id)
      at = end
    }
    if (waiting) out.push(unknown!)
  }

  const scratch: number[] = []
  const whole = (piece: string): number | undefined => (ignoreMerges ? vocab.get(piece) : undefined)
  const byteFallback = byteIds?.every((id) => id >= 0) ?? false
  // Without an unknown token a character can vanish, and what was on both sides of it meet.
  const cuttable = !ignoreMerges && !affixed && (byteFallback || unknown !== undefined)
  return {
    vocab,
    byteFallback,
    cut: cuttable ? metaspaceCut(vocab) : undefined,
    encode(piece, out) {
      const id = whole(piece)
      if (id !== undefined) {
        out.push(id)
        return
      }
      scratch.length = 0
      symbols(piece, scratch)
      if (scratch.length <= SCAN_LIMIT) scanMerge(scratch, merges, out)
      else {
        for (const _ of heapMerge(Int32Array.from(scratch), merges, out)) {
          // to the end at once
        }
      }
    },
    *encodeSlowly(piece, out) {
      const id = whole(piece)
      if (id !== undefined) {
        out.push(id)
        return
      }
      const own: number[] = []
      symbols(piece, own)
      yield
      yield* heapMerge(Int32Array.from(own), merges, out)
    },
  }
}

function readUnknown(node: JsonNode, vocab: ReadonlyMap<string, number>): number | undefined {
  const token = node.optionalString('unk_token')
  if (token === undefined) return undefined
  const id = vocab.get(token)
  if (id === undefined) throw bad(node.at('unk_token'), `is ${JSON.stringify(token)}, which is not in the vocabulary`)
  return id
}

/** `"a b"` or `["a", "b"]`; what the two make is the first and the second without its prefix. */
function readMerges(node: JsonNode, vocab: ReadonlyMap<string, number>, prefixLength: number): MergeTable {
  const merges = node.array('merges')
  const table = new MergeTable(merges.length)
  const idOf = (token: string, rank: number): number => {
    const id = vocab.get(token)
    if (id === undefined)
      throw bad(`${node.at('merges')}[${rank}]`, `needs the token ${JSON.stringify(token)}, which is not in the vocabulary`)
    return id
  }
  for (let rank = 0; rank < merges.length; rank++) {
    const merge = merges[rank]
    let left: unknown
    let right: unknown
    if (typeof merge === 'string') {
      const space = merge.indexOf(' ')
      if (space < 0 || merge.indexOf(' ', space + 1) >= 0)
        throw bad(`${node.at('merges')}[${rank}]`, `is ${JSON.stringify(merge)}, not two tokens`)
      left = merge.slice(0, space)
      right = merge.slice(space + 1)
    } else if (Array.isArray(merge) && merge.length === 2) [left, right] = merge
    if (typeof left !== 'string' || typeof right !== 'string') throw bad(`${node.at('merges')}[${rank}]`, 'must be two tokens')
    table.set(idOf(left, rank), idOf(right, rank), rank, idOf(left + (prefixLength === 0 ? right : right.slice(prefixLength)), rank))
  }
  return table
}

const METASPACE = '\u2581'

/**
 * Vocabularies of the SentencePiece kind see a whole text as one piece, with ▁ for spaces. Where no token has a ▁
 * after a certain character, nothing is ever merged across that place: cutting there gives words, which are quick to
 * encode and worth caching.
 */
function metaspaceCut(vocab: ReadonlyMap<string, number>): Model['cut'] {
  if (!vocab.has(METASPACE)) return undefined
  const not = new Set<string>()
  for (const token of vocab.keys())
    for (let at = token.indexOf(METASPACE, 1); at > 0; at = token.indexOf(METASPACE, at + 1)) not.add(token[at - 1]!)
  return { char: METASPACE, not }
}
