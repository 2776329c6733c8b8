import { toByteAlphabet } from './byte-alphabet.ts'
import { bad, component, type JsonNode } from './json.ts'
import { literalRegex, readPattern, SPLIT_BEHAVIORS, splitter } from './pattern.ts'
import { SPACE, WORD_JOINED } from './regex-classes.ts'
import { Scripts } from './scripts.ts'

/**
 * One step of cutting text into the pieces that the model sees. A `map` rewrites each piece, a `split` cuts it.
 * `first`: the piece begins where the whole text begins.
 */
export type Stage =
  | { readonly kind: 'map'; readonly map: (piece: string, first: boolean) => string; readonly usesFirst?: boolean }
  | { readonly kind: 'split'; readonly split: (piece: string) => Iterable<string> }

/** The `pre_tokenizer` of a tokenizer.json as a flat list of steps. */
export function readPreTokenizer(node: JsonNode): Stage[] {
  return component<Stage[]>(node, PRE_TOKENIZERS)
}

/** Writes a piece in the byte alphabet; depends on nothing but the piece, so that what comes after it can be cached. */
export const BYTE_LEVEL: Stage = { kind: 'map', map: toByteAlphabet }

const split = (source: string, behavior: (typeof SPLIT_BEHAVIORS)[number], invert = false): Stage => ({
  kind: 'split',
  split: splitter(new RegExp(source, 'gv'), behavior, invert),
})

/** GPT-2's expression with Unicode's White_Space for `\s`. */
const GPT2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${SPACE}\\p{L}\\p{N}]+|[${SPACE}]+(?![^${SPACE}])|[${SPACE}]+`

const PUNCTUATION = '[\\p{P}\\x21-\\x2f\\x3a-\\x40\\x5b-\\x60\\x7b-\\x7e]'

const PRE_TOKENIZERS: Readonly<Record<string, (node: JsonNode) => Stage[]>> = {
  ByteLevel: (node) => {
    const stages: Stage[] = []
    if (node.boolean('add_prefix_space', true)) stages.push({ kind: 'map', map: (text) => (text.startsWith(' ') ? text : ` ${text}`) })
    if (node.boolean('use_regex', true)) stages.push(split(GPT2, 'Isolated'))
    return [...stages, BYTE_LEVEL]
  },
  Metaspace: readMetaspace,
  Split: (node) => [
    {
      kind: 'split',
      split: splitter(readPattern(node, 'pattern'), node.oneOf('behavior', SPLIT_BEHAVIORS), node.boolean('invert', false)),
    },
  ],
  Whitespace: () => [split(`[${WORD_JOINED}]+|[^${WORD_JOINED}${SPACE}]+`, 'Removed', true)],
  WhitespaceSplit: () => [split(`[${SPACE}]`, 'Removed')],
  BertPreTokenizer: () => [split(`[${SPACE}]`, 'Removed'), split(PUNCTUATION, 'Isolated')],
  Punctuation: (node) => [split(PUNCTUATION, node.oneOf('behavior', SPLIT_BEHAVIORS, 'Isolated'))],
  Digits: (node) => [split('\\p{N}', node.boolean('individual_digits', false) ? 'Isolated' : 'Contiguous')],
  CharDelimiterSplit: (node) => [{ kind: 'split', split: splitter(literalRegex(node.char('delimiter')), 'Removed') }],
  FixedLength: (node) => {
    const length = node.integer('length', 5)
    if (length === 0) throw bad(node.at('length'), 'must be at least 1')
    return [split(`\\p{Any}{1,${length}}`, 'Isolated')]
  },
  UnicodeScripts: () => {
    const scripts = new Scripts()
    return [{ kind: 'split', split: (piece) => scriptRuns(piece, scripts) }]
  },
  Sequence: (node) => node.nodes('pretokenizers').flatMap(readPreTokenizer),
}

function readMetaspace(node: JsonNode): Stage[] {
  const replacement = node.char('replacement')
  // Files from before prepend_scheme have add_prefix_space, which only "never" contradicts.
  const scheme = node.oneOf('prepend_scheme', ['first', 'never', 'always'], 'always')
  if (node.get('add_prefix_space') === false && scheme !== 'never')
    throw bad(node.at('add_prefix_space'), `is false, but prepend_scheme is "${scheme}"; make it "never"`)
  const map: Stage = {
    kind: 'map',
    usesFirst: scheme === 'first',
    map: (piece, first) => {
      const text = piece.replaceAll(' ', replacement)
      const prepend = scheme === 'always' || (scheme === 'first' && first)
      return prepend && !text.startsWith(replacement) ? replacement + text : text
    },
  }
  if (!node.boolean('split', true)) return [map]
  return [map, { kind: 'split', split: splitter(literalRegex(replacement), 'MergedWithNext') }]
}

/** Cuts where the script changes. Spaces go with what is before them; those at the start are lost, as in Hugging Face's. */
function* scriptRuns(text: string, scripts: Scripts): Generator<string> {
  let start = -1
  let at = 0
  let last: string | undefined
  for (const char of text) {
    const script = scripts.of(char)
    if (script !== 'Any' && last !== script) {
      if (start >= 0) yield text.slice(start, at)
      start = at
      last = script
    }
    at += char.length
  }
  if (start >= 0) yield text.slice(start)
}
