import { fromByteAlphabet } from './byte-alphabet.ts'
import { component, type JsonNode } from './json.ts'
import { readPattern } from './pattern.ts'
import { Utf8Decoder, utf8Bytes } from './utf8.ts'

/**
 * Takes tokens in parts: `text` any number of times, then `end` of the token; `finish` after the last one.
 * A decoder is a chain of sinks. Each hands on what no later token can change, so a chain streams, and decoding
 * everything at once is the same chain.
 */
export interface Sink {
  text(text: string): void
  end(): void
  finish(): void
}

/** Makes a sink in front of another. */
export interface Decoder {
  chain(next: Sink): Sink
  /** The text of one token in the middle of others; bytes where it is part of a character. */
  token(token: string | readonly number[]): string | readonly number[]
}

/** The `decoder` of a tokenizer.json. */
export function readDecoder(node: JsonNode): Decoder {
  return component<Decoder>(node, DECODERS)
}

/** Without a decoder tokens are joined with spaces. */
export const JOIN_WITH_SPACES: Decoder = {
  chain: (next) => perToken(next, (token, index) => (index === 0 ? token : ` ${token}`)),
  token: (token) => token,
}

const DECODERS: Readonly<Record<string, (node: JsonNode) => Decoder>> = {
  ByteLevel: () => ({
    chain: (next) => new ByteLevelSink(next),
    token: (token) => (typeof token === 'string' ? fromByteAlphabet(token) : token),
  }),
  ByteFallback: () => ({
    chain: (next) => new ByteFallbackSink(next),
    token: (token) => {
      const byte = typeof token === 'string' ? byteOf(token) : undefined
      return byte === undefined ? token : [byte]
    },
  }),
  Fuse: () => ({
    chain: (next) => ({ text: (text) => next.text(text), end: () => {}, finish: () => endAndFinish(next) }),
    token: (token) => token,
  }),
  Metaspace: (node) => {
    const replacement = node.char('replacement')
    const scheme = node.oneOf('prepend_scheme', ['first', 'never', 'always'], 'always')
    return onText(
      (token, index) => token.replaceAll(replacement, index === 0 && scheme !== 'never' ? '' : ' '),
      (token) => token.replaceAll(replacement, ' '),
    )
  },
  Replace: (node) => {
    const pattern = readPattern(node, 'pattern')
    const content = node.string('content')
    return onText((token) => token.replace(pattern, () => content))
  },
  Strip: (node) => {
    const content = node.char('content')
    const start = node.integer('start', 0)
    const stop = node.integer('stop', 0)
    return { chain: (next) => new StripSink(next, content, start, stop), token: (token) => token }
  },
  WordPiece: (node) => {
    const prefix = node.string('prefix', '##')
    const tidy = node.boolean('cleanup', true) ? cleanUpToken : (token: string) => token
    const inside = (token: string) => tidy(token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`)
    return onText((token, index) => (index === 0 ? tidy(token) : inside(token)), inside)
  },
  BPEDecoder: (node) => {
    const suffix = node.string('suffix', '</w>')
    return {
      chain: (next) => new SuffixSink(next, suffix),
      token: (token) => (typeof token === 'string' ? token.replaceAll(suffix, ' ') : token),
    }
  },
  CTC: (node) => {
    const pad = node.string('pad_token', '<pad>')
    const delimiter = node.string('word_delimiter_token', '|')
    const tidy = node.boolean('cleanup', true)
      ? (token: string) => cleanUpToken(token).replaceAll(delimiter, ' ')
      : (token: string) => token
    const decode = (token: string) => tidy(token.replaceAll(pad, ''))
    return {
      chain: (next) => new CtcSink(next, decode),
      token: (token) => (typeof token === 'string' ? decode(token) : token),
    }
  },
  Sequence: (node) => {
    const parts = node.nodes('decoders').map(readDecoder)
    return {
      chain: (next) => parts.reduceRight((sink, part) => part.chain(sink), next),
      token: (token) => parts.reduce((text, part) => part.token(text), token),
    }
  },
}

function endAndFinish(next: Sink): void {
  next.end()
  next.finish()
}

/** The tidying that WordPiece and CTC decoders do, token by token. */
function cleanUpToken(token: string): string {
  return token
    .replaceAll(' .', '.')
    .replaceAll(' ?', '?')
    .replaceAll(' !', '!')
    .replaceAll(' ,', ',')
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(' do not', " don't")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re")
}

/** A decoder that rewrites each token for itself. */
function onText(decode: (token: string, index: number) => string, inside = (token: string) => decode(token, 1)): Decoder {
  return {
    chain: (next) => perToken(next, decode),
    token: (token) => (typeof token === 'string' ? inside(token) : token),
  }
}

function perToken(next: Sink, decode: (token: string, index: number) => string): Sink {
  let token = ''
  let index = 0
  return {
    text: (text) => {
      token += text
    },
    end: () => {
      next.text(decode(token, index++))
      next.end()
      token = ''
    },
    finish: () => next.finish(),
  }
}

/** All tokens' bytes are one text; half a character waits for the rest. */
class ByteLevelSink implements Sink {
  readonly #next: Sink
  readonly #utf8 = new Utf8Decoder()
  #token = ''

  constructor(next: Sink) {
    this.#next = next
  }

  text(text: string): void {
    this.#token += text
  }

  end(): void {
    this.#next.text(this.#utf8.push(fromByteAlphabet(this.#token)))
    this.#token = ''
  }

  finish(): void {
    this.#next.text(this.#utf8.flush())
    endAndFinish(this.#next)
  }
}

/** The byte of `<0x0A>`; Rust's number parser, which the files were made with, takes a plus sign too. */
function byteOf(token: string): number | undefined {
  return /^<0x(?:[0-9A-Fa-f]{2}|\+[0-9A-Fa-f])>$/.test(token) ? Number.parseInt(token.slice(3, 5).replace('+', ''), 16) : undefined
}

/**
 * A run of byte tokens is text if all of it is valid UTF-8, and one U+FFFD for each byte otherwise. So a run waits
 * until it ends: a later byte can still spoil it.
 */
class ByteFallbackSink implements Sink {
  readonly #next: Sink
  #token = ''
  #run: number[] = []

  constructor(next: Sink) {
    this.#next = next
  }

  text(text: string): void {
    this.#token += text
  }

  end(): void {
    const byte = byteOf(this.#token)
    if (byte !== undefined) this.#run.push(byte)
    else {
      this.#flushRun()
      this.#next.text(this.#token)
      this.#next.end()
    }
    this.#token = ''
  }

  finish(): void {
    this.#flushRun()
    this.#next.finish()
  }

  #flushRun(): void {
    if (this.#run.length === 0) return
    const text = validUtf8(this.#run)
    if (text !== undefined) {
      this.#next.text(text)
      this.#next.end()
    } else {
      for (let i = 0; i < this.#run.length; i++) {
        this.#next.text('\ufffd')
        this.#next.end()
      }
    }
    this.#run = []
  }
}

function validUtf8(bytes: readonly number[]): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes))
  } catch {
    return undefined
  }
}

/** Takes up to `start` of one character off each token's front and up to `stop` off its end. */
class StripSink implements Sink {
  readonly #next: Sink
  readonly #content: string
  readonly #start: number
  readonly #stop: number
  /** Characters that may still be taken off the front; 0 once another character came. */
  #front: number
  /** Characters at the end so far that are taken off if nothing follows them. */
  #held = 0

  constructor(next: Sink, content: string, start: number, stop: number) {
    this.#next = next
    this.#content = content
    this.#start = start
    this.#stop = stop
    this.#front = start
  }

  text(text: string): void {
    let rest = text
    while (this.#front > 0 && rest !== '') {
      if (rest.startsWith(this.#content)) {
        rest = rest.slice(this.#content.length)
        this.#front--
      } else this.#front = 0
    }
    if (rest === '') return
    if (this.#stop === 0) {
      this.#next.text(rest)
      return
    }
    const whole = this.#content.repeat(this.#held) + rest
    let end = whole.length
    this.#held = 0
    while (this.#held < this.#stop && whole.slice(0, end).endsWith(this.#content)) {
      end -= this.#content.length
      this.#held++
    }
    this.#next.text(whole.slice(0, end))
  }

  end(): void {
    this.#front = this.#start
    this.#held = 0
    this.#next.end()
  }

  finish(): void {
    this.#next.finish()
  }
}

/** `</w>` is a space, but nothing on the last token: each token waits for the next. */
class SuffixSink implements Sink {
  readonly #next: Sink
  readonly #suffix: string
  #token = ''
  #waiting: string | undefined

  constructor(next: Sink, suffix: string) {
    this.#next = next
    this.#suffix = suffix
  }

  text(text: string): void {
    this.#token += text
  }

  end(): void {
    this.#emit(' ')
    this.#waiting = this.#token
    this.#token = ''
  }

  finish(): void {
    this.#emit('')
    this.#next.finish()
  }

  #emit(replacement: string): void {
    if (this.#waiting === undefined) return
    this.#next.text(this.#suffix === '' ? this.#waiting : this.#waiting.replaceAll(this.#suffix, replacement))
    this.#next.end()
    this.#waiting = undefined
  }
}

/** Repeated tokens count once, padding not at all. */
class CtcSink implements Sink {
  readonly #next: Sink
  readonly #decode: (token: string) => string
  #token = ''
  #last: string | undefined

  constructor(next: Sink, decode: (token: string) => string) {
    this.#next = next
    this.#decode = decode
  }

  text(text: string): void {
    this.#token += text
  }

  end(): void {
    if (this.#token !== this.#last) {
      const text = this.#decode(this.#token)
      if (text !== '') {
        this.#next.text(text)
        this.#next.end()
      }
    }
    this.#last = this.#token
    this.#token = ''
  }

  finish(): void {
    this.#next.finish()
  }
}

/** Text of a token and, where it is only part of a character, its bytes. */
export function tokenBytes(part: string | readonly number[]): readonly number[] {
  return typeof part === 'string' ? utf8Bytes(part) : part
}
