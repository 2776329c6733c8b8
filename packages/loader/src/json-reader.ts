/** Text that is no JSON, or not the JSON that was asked for: what and where. Callers add the file's name. */
export class JsonError extends Error {
  /** From 1; a column is a UTF-16 unit. */
  readonly line: number
  readonly column: number
  constructor(message: string, text: string, offset: number) {
    super(message)
    const before = text.slice(0, offset)
    this.line = before.split('\n').length
    this.column = offset - before.lastIndexOf('\n')
  }
}

export interface JsonRules {
  /** NaN, Infinity and -Infinity, as Python writes and reads them. */
  readonly python: boolean
  /** A key twice in one object is an error; otherwise the last one counts. */
  readonly uniqueKeys: boolean
}
export const STRICT_JSON: JsonRules = Object.freeze({ python: false, uniqueKeys: true })
export const PYTHON_JSON: JsonRules = Object.freeze({ python: true, uniqueKeys: false })

/** No published file comes near; deeper ones exist only to exhaust a reader's stack. */
const DEEPEST = 100

const QUOTE = 0x22
const BACKSLASH = 0x5c
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
}

/**
 * Reads JSON from front to back, a value at a time, so that a caller who knows what must come next takes exactly that and
 * nothing is built from a file that says something else.
 */
export class JsonReader {
  readonly #text: string
  readonly #rules: JsonRules
  readonly #number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y
  #at = 0

  constructor(text: string, rules: JsonRules) {
    this.#text = text
    this.#rules = rules
  }

  /** Any value, to the end of the text. */
  static parse(text: string, rules: JsonRules): unknown {
    const reader = new JsonReader(text, rules)
    const value = reader.value()
    reader.end()
    return value
  }

  error(message: string, offset = this.#at): JsonError {
    return new JsonError(message, this.#text, offset)
  }

  value(depth = 0): unknown {
    const c = this.#peek()
    if (c === '{') {
      const object: Record<string, unknown> = {}
      this.object((key) => {
        const value = this.value(depth + 1)
        // Assigning to __proto__ would change the prototype.
        if (key === '__proto__') Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true })
        else object[key] = value
      }, depth)
      return object
    }
    if (c === '[') {
      const array: unknown[] = []
      this.array(() => array.push(this.value(depth + 1)), depth)
      return array
    }
    if (c === '"') return this.string()
    if (this.#word('true')) return true
    if (this.#word('false')) return false
    if (this.#word('null')) return null
    if (this.#rules.python) {
      if (this.#word('NaN')) return Number.NaN
      if (this.#word('Infinity')) return Number.POSITIVE_INFINITY
      if (this.#word('-Infinity')) return Number.NEGATIVE_INFINITY
    }
    return Number(this.#numeral())
  }

  /** `{ … }`: calls `member` with each key; it must take the value. */
  object(member: (key: string) => void, depth = 0): void {
    this.#open('{', depth)
    const seen = this.#rules.uniqueKeys ? new Set<string>() : undefined
    if (this.#skip('}')) return
    do {
      this.#peek()
      const start = this.#at
      const key = this.string('a name in quotes')
      if (seen?.has(key)) throw this.error(`${quote(key)} is there twice`, start)
      seen?.add(key)
      this.#expect(':', `":" after ${quote(key)}`)
      member(key)
    } while (this.#skip(','))
    this.#expect('}', '"," or "}"')
  }

  /** `[ … ]`: calls `element` before each value; it must take the value. */
  array(element: () => void, depth = 0): void {
    this.#open('[', depth)
    if (this.#skip(']')) return
    do element()
    while (this.#skip(','))
    this.#expect(']', '"," or "]"')
  }

  string(expected = 'a string in quotes'): string {
    if (this.#peek() !== '"') throw this.error(`should have ${expected} here, has ${this.#sight()}`)
    const text = this.#text
    const start = this.#at + 1
    for (let i = start; i < text.length; i++) {
      const c = text.charCodeAt(i)
      if (c === QUOTE) {
        this.#at = i + 1
        return text.slice(start, i)
      }
      if (c === BACKSLASH) return this.#escaped(start, i)
      if (c < 0x20) throw this.error('a string has a control character that is not escaped', i)
    }
    throw this.error('a string has no end', this.#at)
  }

  /** A whole number from 0 to 2^53 - 1, written as digits. */
  natural(): number {
    const c = this.#peek()
    const start = this.#at
    if (c !== '-' && !isDigit(c)) throw this.error(`should have a number here, has ${this.#sight()}`)
    const numeral = this.#numeral()
    const n = Number(numeral)
    if (!/^\d+$/.test(numeral)) throw this.error(`should have a whole number of at least 0 here, has ${quote(numeral)}`, start)
    if (!Number.isSafeInteger(n)) throw this.error(`${clip(numeral)} is beyond 2^53`, start)
    return n
  }

  /** Takes `null` if it is next. */
  null(): boolean {
    this.#peek()
    return this.#word('null')
  }

  /** Nothing may follow but white space. */
  end(): void {
    if (this.#peek() !== '') throw this.error(`should end here, has ${this.#sight()}`)
  }

  /** Where the next value starts. */
  get offset(): number {
    this.#peek()
    return this.#at
  }

  /** The next character that is not white space, '' at the end. It is not taken. */
  #peek(): string {
    const text = this.#text
    for (;;) {
      const c = text.charCodeAt(this.#at)
      if (c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09) this.#at++
      else return text.charAt(this.#at)
    }
  }

  #skip(c: string): boolean {
    if (this.#peek() !== c) return false
    this.#at++
    return true
  }

  #expect(c: string, what: string): void {
    if (!this.#skip(c)) throw this.error(`should have ${what} here, has ${this.#sight()}`)
  }

  #open(c: string, depth: number): void {
    if (depth >= DEEPEST) throw this.error(`is nested more than ${DEEPEST} deep`)
    this.#expect(c, `"${c}"`)
  }

  #word(word: string): boolean {
    if (!this.#text.startsWith(word, this.#at)) return false
    this.#at += word.length
    return true
  }

  #numeral(): string {
    this.#number.lastIndex = this.#at
    const found = this.#number.exec(this.#text)
    if (!found) throw this.error(`should have a value here, has ${this.#sight()}`)
    this.#at = this.#number.lastIndex
    return found[0]
  }

  /** The rest of a string whose first backslash is at i. */
  #escaped(start: number, i: number): string {
    const text = this.#text
    const parts = [text.slice(start, i)]
    while (i < text.length) {
      const c = text.charCodeAt(i)
      if (c === QUOTE) {
        this.#at = i + 1
        const string = parts.join('')
        if (/\p{Surrogate}/u.test(string)) throw this.error('a string has half a character (a lone surrogate)', start)
        return string
      }
      if (c < 0x20) throw this.error('a string has a control character that is not escaped', i)
      if (c !== BACKSLASH) {
        let end = i + 1
        for (let d = text.charCodeAt(end); d >= 0x20 && d !== QUOTE && d !== BACKSLASH; d = text.charCodeAt(++end));
        parts.push(text.slice(i, end))
        i = end
        continue
      }
      const letter = text.charAt(i + 1)
      const hex = text.slice(i + 2, i + 6)
      if (letter === 'u' && /^[0-9a-fA-F]{4}$/.test(hex)) {
        parts.push(String.fromCharCode(Number.parseInt(hex, 16)))
        i += 6
      } else {
        const plain = ESCAPES[letter]
        if (plain === undefined) throw this.error('a string has an escape that JSON does not know', i)
        parts.push(plain)
        i += 2
      }
    }
    throw this.error('a string has no end', start)
  }

  /** What is found here, for a message. */
  #sight(): string {
    return this.#peek() === '' ? 'the end' : quote(this.#text.slice(this.#at, this.#at + 20))
  }
}

const isDigit = (c: string): boolean => c >= '0' && c <= '9' && c.length === 1

const clip = (text: string): string => (text.length > 80 ? `${text.slice(0, 80)}…` : text)
/** For messages: in quotes, without control characters, and never long. */
export const quote = (text: string): string => JSON.stringify(clip(text))
