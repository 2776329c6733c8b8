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
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d
const OPEN_ARRAY = 0x5b
const CLOSE_ARRAY = 0x5d
const COMMA = 0x2c
const COLON = 0x3a
const MINUS = 0x2d
/** Where the text has ended. */
const END = -1

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
    if (c === OPEN_OBJECT) {
      const object: Record<string, unknown> = {}
      this.object((key) => {
        const value = this.value(depth + 1)
        // Assigning to __proto__ would change the prototype.
        if (key === '__proto__') Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true })
        else object[key] = value
      }, depth)
      return object
    }
    if (c === OPEN_ARRAY) {
      const array: unknown[] = []
      this.array(() => array.push(this.value(depth + 1)), depth)
      return array
    }
    if (c === QUOTE) return this.string()
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
    this.#open(OPEN_OBJECT, depth)
    const keys = this.#rules.uniqueKeys ? new Keys() : undefined
    if (this.#skip(CLOSE_OBJECT)) return
    do {
      this.#peek()
      const start = this.#at
      const key = this.string('a name in quotes')
      if (keys && !keys.add(key)) throw this.error(`${quote(key)} is there twice`, start)
      if (!this.#skip(COLON)) throw this.#unexpected(`":" after ${quote(key)}`)
      member(key)
    } while (this.#skip(COMMA))
    if (!this.#skip(CLOSE_OBJECT)) throw this.#unexpected('"," or "}"')
  }

  /** `[ … ]`: calls `element` before each value; it must take the value. */
  array(element: () => void, depth = 0): void {
    this.#open(OPEN_ARRAY, depth)
    if (this.#skip(CLOSE_ARRAY)) return
    do element()
    while (this.#skip(COMMA))
    if (!this.#skip(CLOSE_ARRAY)) throw this.#unexpected('"," or "]"')
  }

  string(expected = 'a string in quotes'): string {
    if (this.#peek() !== QUOTE) throw this.#unexpected(expected)
    const text = this.#text
    const start = this.#at
    let escapes = false
    for (let i = start + 1; i < text.length; i++) {
      const c = text.charCodeAt(i)
      if (c === QUOTE) {
        this.#at = i + 1
        return escapes ? this.#unescaped(start, i + 1) : text.slice(start + 1, i)
      }
      if (c < 0x20) throw this.error('a string has a control character that is not escaped', i)
      if (c === BACKSLASH) {
        escapes = true
        i++
      }
    }
    throw this.error('a string has no end', start)
  }

  /** A whole number from 0 to 2^53 - 1, written as digits. */
  natural(): number {
    const c = this.#peek()
    const start = this.#at
    if (c !== MINUS && !isDigit(c)) throw this.#unexpected('a number')
    const numeral = this.#numeral()
    for (let i = 0; i < numeral.length; i++) {
      if (!isDigit(numeral.charCodeAt(i))) throw this.error(`should have a whole number of at least 0 here, has ${quote(numeral)}`, start)
    }
    const n = Number(numeral)
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
    if (this.#peek() !== END) throw this.error(`should end here, has ${this.#sight()}`)
  }

  /** The code of the next character that is not white space. It is not taken. */
  #peek(): number {
    const text = this.#text
    while (this.#at < text.length) {
      const c = text.charCodeAt(this.#at)
      if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return c
      this.#at++
    }
    return END
  }

  #skip(code: number): boolean {
    if (this.#peek() !== code) return false
    this.#at++
    return true
  }

  #open(code: number, depth: number): void {
    if (depth >= DEEPEST) throw this.error(`is nested more than ${DEEPEST} deep`)
    if (!this.#skip(code)) throw this.#unexpected(`"${String.fromCharCode(code)}"`)
  }

  #word(word: string): boolean {
    if (!this.#text.startsWith(word, this.#at)) return false
    this.#at += word.length
    return true
  }

  #numeral(): string {
    this.#number.lastIndex = this.#at
    const found = this.#number.exec(this.#text)
    if (!found) throw this.#unexpected('a value')
    this.#at = this.#number.lastIndex
    return found[0]
  }

  /** A string with escapes, quotes included: [start, end) of the text. */
  #unescaped(start: number, end: number): string {
    let string: string
    try {
      string = JSON.parse(this.#text.slice(start, end)) as string
    } catch {
      throw this.error('a string has an escape that JSON does not know', start)
    }
    if (/\p{Surrogate}/u.test(string)) throw this.error('a string has half a character (a lone surrogate)', start)
    return string
  }

  #unexpected(expected: string): JsonError {
    return this.error(`should have ${expected} here, has ${this.#sight()}`)
  }

  /** What is found here, for a message. */
  #sight(): string {
    return this.#peek() === END ? 'the end' : quote(this.#text.slice(this.#at, this.#at + 20))
  }
}

/** The keys of one object: most have few, for which a list is faster. */
class Keys {
  readonly #few: string[] = []
  #many: Set<string> | undefined

  /** False when it was there already. */
  add(key: string): boolean {
    if (this.#many) return this.#many.size !== this.#many.add(key).size
    if (this.#few.includes(key)) return false
    if (this.#few.push(key) > 8) this.#many = new Set(this.#few)
    return true
  }
}

const isDigit = (code: number): boolean => code >= 0x30 && code <= 0x39

const clip = (text: string): string => (text.length > 80 ? `${text.slice(0, 80)}…` : text)
/** For messages: in quotes, without control characters, and never long. */
export const quote = (text: string): string => JSON.stringify(clip(text))
