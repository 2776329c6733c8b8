import { utf8Bytes } from './utf8.ts'

/**
 * GPT-2's alphabet: a printable character for each byte. Printable Latin-1 stands for itself, the other 68 bytes
 * are the characters from U+0100 on.
 */
export const BYTE_TO_CHAR: readonly string[] = (() => {
  const printable = (b: number) => (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae
  let next = 0x100
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable(b) ? b : next++))
})()

const CHAR_TO_BYTE: ReadonlyMap<string, number> = new Map(BYTE_TO_CHAR.map((char, byte) => [char, byte]))

const PRINTABLE_ASCII = /^[!-~]*$/

/** Text to the byte alphabet: `"é b"` to `"Ã©Ġb"`. */
export function toByteAlphabet(text: string): string {
  if (PRINTABLE_ASCII.test(text)) return text
  let out = ''
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    if (unit < 0x80) out += BYTE_TO_CHAR[unit]!
    else if (unit < 0x800) out += BYTE_TO_CHAR[0xc0 | (unit >> 6)]! + BYTE_TO_CHAR[0x80 | (unit & 0x3f)]!
    else {
      const code = text.codePointAt(i)!
      if (code > 0xffff) {
        i++
        out += BYTE_TO_CHAR[0xf0 | (code >> 18)]! + BYTE_TO_CHAR[0x80 | ((code >> 12) & 0x3f)]!
      } else out += BYTE_TO_CHAR[0xe0 | (code >> 12)]!
      out += BYTE_TO_CHAR[0x80 | ((code >> 6) & 0x3f)]! + BYTE_TO_CHAR[0x80 | (code & 0x3f)]!
    }
  }
  return out
}

/** A token in the byte alphabet to its bytes; one with any other character (an added token) to its UTF-8. */
export function fromByteAlphabet(token: string): number[] {
  const bytes: number[] = []
  for (const char of token) {
    const byte = CHAR_TO_BYTE.get(char)
    if (byte === undefined) return utf8Bytes(token)
    bytes.push(byte)
  }
  return bytes
}
