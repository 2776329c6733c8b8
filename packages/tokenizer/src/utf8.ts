const REPLACEMENT = '\ufffd'

/**
 * Bytes to text as they come. Every maximal part that is no character becomes one U+FFFD, as in the WHATWG
 * standard and Rust's `from_utf8_lossy`; a character whose bytes are not all there yet is held back.
 */
export class Utf8Decoder {
  #codePoint = 0
  #needed = 0
  #lower = 0x80
  #upper = 0xbf

  /** Text that `bytes` completes. */
  push(bytes: Iterable<number>): string {
    let text = ''
    for (const byte of bytes) {
      if (this.#needed > 0) {
        if (byte >= this.#lower && byte <= this.#upper) {
          this.#lower = 0x80
          this.#upper = 0xbf
          this.#codePoint = (this.#codePoint << 6) | (byte & 0x3f)
          if (--this.#needed === 0) text += String.fromCodePoint(this.#codePoint)
          continue
        }
        text += REPLACEMENT
        this.#reset()
      }
      if (byte < 0x80) text += String.fromCharCode(byte)
      else if (byte >= 0xc2 && byte <= 0xdf) this.#start(byte & 0x1f, 1)
      else if (byte >= 0xe0 && byte <= 0xef) {
        this.#start(byte & 0x0f, 2)
        if (byte === 0xe0) this.#lower = 0xa0
        if (byte === 0xed) this.#upper = 0x9f // above: surrogates
      } else if (byte >= 0xf0 && byte <= 0xf4) {
        this.#start(byte & 0x07, 3)
        if (byte === 0xf0) this.#lower = 0x90
        if (byte === 0xf4) this.#upper = 0x8f
      } else text += REPLACEMENT
    }
    return text
  }

  /** U+FFFD for a character that stayed incomplete. */
  flush(): string {
    const text = this.#needed > 0 ? REPLACEMENT : ''
    this.#reset()
    return text
  }

  #start(bits: number, needed: number): void {
    this.#codePoint = bits
    this.#needed = needed
  }

  #reset(): void {
    this.#needed = 0
    this.#lower = 0x80
    this.#upper = 0xbf
  }
}

export function decodeUtf8(bytes: Iterable<number>): string {
  const decoder = new Utf8Decoder()
  return decoder.push(bytes) + decoder.flush()
}

/** Text as UTF-8 bytes, one number each. */
export function utf8Bytes(text: string): number[] {
  return [...Buffer.from(text, 'utf8')]
}
