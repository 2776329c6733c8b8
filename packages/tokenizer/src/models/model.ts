import { bad, component, type JsonNode } from '../json.ts'
import { readBpe } from './bpe.ts'
import { readUnigram } from './unigram.ts'
import { readWordLevel } from './wordlevel.ts'
import { readWordPiece } from './wordpiece.ts'

/** Turns one piece of text into token ids. */
export interface Model {
  /** Token to id. */
  readonly vocab: ReadonlyMap<string, number>
  /** Appends the ids of `piece` (not empty) to `out`. */
  encode(piece: string, out: number[]): void
  /** The same for a very long piece; yields now and then, so that others can run. */
  encodeSlowly?(piece: string, out: number[]): Generator<void>
  /** Characters without token become the tokens of their bytes, all 256 of which are there. */
  readonly byteFallback?: boolean
  /**
   * A place where a text can be cut without changing its ids: a cut is right before `char`, unless the character
   * before is in `not`. Undefined when nothing is known.
   */
  readonly cut?: { readonly char: string; readonly not: ReadonlySet<string> } | undefined
}

/** The `model` of a tokenizer.json. */
export function readModel(node: JsonNode): Model {
  // Files from before the type was written have a list of pairs for Unigram, merges for BPE.
  if (node.has('type')) return component<Model>(node, MODELS)
  if (node.has('merges')) return readBpe(node)
  if (Array.isArray(node.get('vocab'))) return readUnigram(node)
  return node.has('continuing_subword_prefix') ? readWordPiece(node) : readWordLevel(node)
}

const MODELS: Readonly<Record<string, (node: JsonNode) => Model>> = {
  BPE: readBpe,
  Unigram: readUnigram,
  WordPiece: readWordPiece,
  WordLevel: readWordLevel,
}

/** The largest id that a vocabulary may have: tables are sized by it. */
const MAX_ID = 2 ** 24

/** A vocabulary of the form `{ token: id }`. */
export function readVocab(node: JsonNode): Map<string, number> {
  const fields = node.node('vocab').fields
  const vocab = new Map<string, number>()
  for (const token of Object.keys(fields)) {
    const id = fields[token]
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) > MAX_ID)
      throw bad(node.at('vocab'), `gives ${JSON.stringify(token)} the id ${JSON.stringify(id)}, which is no integer from 0 to ${MAX_ID}`)
    vocab.set(token, id as number)
  }
  return vocab
}
