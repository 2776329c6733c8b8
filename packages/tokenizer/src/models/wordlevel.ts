import { tokenizerError } from '../errors.ts'
import type { JsonNode } from '../json.ts'
import { type Model, readVocab } from './model.ts'

/** A piece is a token or unknown. */
export function readWordLevel(node: JsonNode): Model {
  const vocab = readVocab(node)
  const unknown = node.string('unk_token')
  return {
    vocab,
    encode(piece, out) {
      const id = vocab.get(piece) ?? vocab.get(unknown)
      if (id === undefined)
        throw tokenizerError('BAD_TEXT', `${JSON.stringify(piece)} is not in the vocabulary, and neither is the unknown token ${unknown}`)
      out.push(id)
    },
  }
}
