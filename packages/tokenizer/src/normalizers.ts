import { toByteAlphabet } from './byte-alphabet.ts'
import { component, type JsonNode } from './json.ts'
import { readPattern } from './pattern.ts'
import { readPrecompiled } from './precompiled.ts'
import { SPACE } from './regex-classes.ts'
import { leadingSpace, lowercase, trailingSpace } from './unicode.ts'

/** Rewrites text before it is split into pieces. */
export type Normalizer = (text: string) => string

/** The `normalizer` of a tokenizer.json. */
export function readNormalizer(node: JsonNode): Normalizer {
  return component<Normalizer>(node, NORMALIZERS)
}

const NORMALIZERS: Readonly<Record<string, (node: JsonNode) => Normalizer>> = {
  NFC: () => (text) => text.normalize('NFC'),
  NFD: () => (text) => text.normalize('NFD'),
  NFKC: () => (text) => text.normalize('NFKC'),
  NFKD: () => (text) => text.normalize('NFKD'),
  Lowercase: () => lowercase,
  StripAccents: () => (text) => text.replace(/\p{M}/gu, ''),
  Strip: (node) => {
    const left = node.boolean('strip_left', true)
    const right = node.boolean('strip_right', true)
    return (text) => {
      const end = right ? trailingSpace(text) : text.length
      return text.slice(left ? Math.min(leadingSpace(text), end) : 0, end)
    }
  },
  Prepend: (node) => {
    const prefix = node.string('prepend')
    return (text) => (text === '' ? '' : prefix + text)
  },
  Replace: (node) => {
    const pattern = readPattern(node, 'pattern')
    const content = node.string('content')
    const literal = literalOf(node)
    // On a long text a string is found and replaced many times faster than by an expression and a function.
    if (literal !== undefined && literal !== '' && !content.includes('$')) return (text) => text.replaceAll(literal, content)
    return (text) => text.replace(pattern, () => content)
  },
  ByteLevel: () => toByteAlphabet,
  Precompiled: readPrecompiled,
  Nmt: () => nmt,
  BertNormalizer: readBert,
  Sequence: (node) => {
    const parts = node.nodes('normalizers').map(readNormalizer)
    return (text) => parts.reduce((result, part) => part(result), text)
  },
}

function literalOf(node: JsonNode): string | undefined {
  const pattern = node.get('pattern')
  if (typeof pattern === 'string') return pattern
  const text = (pattern as { String?: unknown }).String
  return typeof text === 'string' ? text : undefined
}

/** Control characters that the NMT rules leave alone, or make spaces of. */
const NMT_KEPT = '\\0\\t\\n\\f\\r\\x80-\\x8e\\x90-\\x9e'
const NMT_REMOVED = new RegExp(`[\\p{Cc}--[${NMT_KEPT}]]`, 'gv')
const NMT_SPACES = /[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]/g

/** The cleaning of the NMT rules: some control characters go, odd blanks become spaces. */
const nmt: Normalizer = (text) => text.replace(NMT_REMOVED, '').replace(NMT_SPACES, ' ')

const CLEANED = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\ufffd]/gu
const BLANK_CONTROLS = /[\t\n\r]/g
const ANY_SPACE = new RegExp(`[${SPACE}]`, 'gv')
/** The blocks that BERT's original code calls Chinese; 2B920 is a slip of the Rust code that the trained models share. */
const CHINESE =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu

function readBert(node: JsonNode): Normalizer {
  const clean = node.boolean('clean_text', true)
  const chinese = node.boolean('handle_chinese_chars', true)
  const lower = node.boolean('lowercase', true)
  const strip = node.has('strip_accents') ? node.boolean('strip_accents') : lower
  return (text) => {
    let out = text
    if (clean) out = out.replace(BLANK_CONTROLS, ' ').replace(CLEANED, '').replace(ANY_SPACE, ' ')
    if (chinese) out = out.replace(CHINESE, ' $& ')
    if (strip) out = out.normalize('NFD').replace(/\p{Mn}/gu, '')
    return lower ? lowercase(out) : out
  }
}
