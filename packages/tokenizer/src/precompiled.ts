import { bad, type JsonNode } from './json.ts'
import type { Normalizer } from './normalizers.ts'

/**
 * SentencePiece's compiled character map: the size of a double-array trie, the trie's units (32 bits each, little
 * endian), then the replacements, each ended by a zero byte. The trie maps the UTF-8 of what is replaced to an
 * offset among the replacements.
 */
export function readPrecompiled(node: JsonNode): Normalizer {
  const data = Buffer.from(node.string('precompiled_charsmap'), 'base64')
  const where = node.at('precompiled_charsmap')
  if (data.length < 4) throw bad(where, 'is too short to be a character map')
  const size = data.readUInt32LE(0)
  if (size % 4 !== 0 || size + 4 > data.length) throw bad(where, `says its trie takes ${size} bytes, but ${data.length - 4} are there`)
  const units = Uint32Array.from({ length: size / 4 }, (_, i) => data.readUInt32LE(4 + 4 * i))
  const replacements = data.subarray(4 + size)

  /** The replacement of the shortest prefix of `chunk` that has one. */
  const transform = (chunk: string): string | undefined => {
    let unit = units[0] ?? 0
    let at = offset(unit)
    for (const byte of Buffer.from(chunk, 'utf8')) {
      at ^= byte
      unit = units[at] ?? 0
      if ((unit & 0x800000ff) >>> 0 !== byte) return undefined
      at ^= offset(unit)
      if (((unit >>> 8) & 1) === 1) {
        const start = (units[at] ?? 0) & 0x7fffffff
        const end = replacements.indexOf(0, start)
        return replacements.toString('utf8', start, end < 0 ? replacements.length : end)
      }
    }
    return undefined
  }
  const known = new Map<string, string>()
  const replace = (chunk: string): string => {
    let found = known.get(chunk)
    if (found === undefined) {
      // A whole grapheme is looked up only when short, as in SentencePiece's Rust port.
      const whole = Buffer.byteLength(chunk) < 6 ? transform(chunk) : undefined
      found = whole ?? [...chunk].map((char) => transform(char) ?? char).join('')
      if (known.size < 20_000 && chunk.length < 16) known.set(chunk, found)
    }
    return found
  }
  const graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' })
  return (text) => {
    let out = ''
    // Printable ASCII followed by ASCII is a grapheme of its own: only the rest needs the segmenter.
    for (const [run, simple] of runs(text)) {
      if (simple) for (const char of run) out += replace(char)
      else for (const { segment } of graphemes.segment(run)) out += replace(segment)
    }
    return out
  }
}

const offset = (unit: number): number => (unit >>> 10) << ((unit & 0x200) >>> 6)

const SIMPLE_RUN = /[ -~]+(?=[ -~]|$)/y

function* runs(text: string): Generator<[string, boolean]> {
  let at = 0
  while (at < text.length) {
    SIMPLE_RUN.lastIndex = at
    const simple = SIMPLE_RUN.exec(text)
    if (simple) {
      yield [simple[0], true]
      at += simple[0].length
      continue
    }
    // Up to two printable ASCII characters in a row, where a grapheme surely begins.
    const rest = /[ -~](?=[ -~])/g
    rest.lastIndex = at + 1
    const next = rest.exec(text)?.index ?? text.length
    yield [text.slice(at, next), false]
    at = next
  }
}
