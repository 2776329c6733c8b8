import { bad, type JsonNode } from '../json.ts'
import { type Model, readVocab } from './model.ts'

/** The longest token that the word begins with, then the longest `##` token that goes on, and so forth. */
export function readWordPiece(node: JsonNode): Model {
  const vocab = readVocab(node)
  const prefix = node.string('continuing_subword_prefix', '##')
  const longest = node.integer('max_input_chars_per_word', 100)
  const unknown = vocab.get(node.string('unk_token', '[UNK]'))
  if (unknown === undefined) throw bad(node.at('unk_token'), `is not in the vocabulary: ${node.string('unk_token', '[UNK]')}`)
  return {
    vocab,
    encode(piece, out) {
      const begin = out.length
      if (piece.length > longest && (piece.length > 2 * longest || [...piece].length > longest)) {
        out.push(unknown)
        return
      }
      let start = 0
      while (start < piece.length) {
        let end = piece.length
        let id: number | undefined
        for (; end > start; end -= isLowSurrogate(piece, end - 1) ? 2 : 1) {
          const part = piece.slice(start, end)
          id = vocab.get(start > 0 ? prefix + part : part)
          if (id !== undefined) break
        }
        if (id === undefined) {
          out.length = begin
          out.push(unknown)
          return
        }
        out.push(id)
        start = end
      }
    },
  }
}

const isLowSurrogate = (text: string, at: number): boolean => (text.charCodeAt(at) & 0xfc00) === 0xdc00
