import { tokenizerError } from './errors.ts'
import { ignoringCase, literal, posixClass, propertyClass, SHORTHANDS, WORD_ALONE } from './regex-classes.ts'

/**
 * The regular expressions of tokenizer.json are Oniguruma's. This turns one into JavaScript's with the `v` flag:
 * Unicode classes where JavaScript's are narrower, inline options, atomic groups and possessive quantifiers (as a
 * lookahead with a back reference), `\h`, `\A`, `\z`, POSIX brackets, class intersections.
 *
 * @param where names the place in error messages
 * @throws BAD_TOKENIZER what JavaScript cannot do, or a syntax error
 */
export function compileRegex(pattern: string, where: string): RegExp {
  const fail = (problem: string, cause?: unknown) =>
    tokenizerError(
      'BAD_TOKENIZER',
      `${where}: the regular expression ${JSON.stringify(pattern)} ${problem}`,
      cause === undefined ? undefined : { cause },
    )
  const source = new Translator(pattern, fail).run()
  try {
    return new RegExp(source, 'gv')
  } catch (error) {
    throw fail(`cannot be used: ${(error as Error).message}`, error)
  }
}

interface Options {
  ignoreCase: boolean
  dotAll: boolean
  extended: boolean
}

class Translator {
  readonly #chars: string[]
  readonly #fail: (problem: string) => Error
  readonly #capture: boolean
  #at = 0
  #groups = 0
  #atomic = 0

  constructor(pattern: string, fail: (problem: string) => Error) {
    this.#chars = [...pattern]
    this.#fail = fail
    // Groups only capture when something refers back to one.
    this.#capture = /\\[1-9]|\\k[<']/.test(pattern)
  }

  run(): string {
    const source = this.#alternatives({ ignoreCase: false, dotAll: false, extended: false })
    if (this.#at < this.#chars.length) throw this.#fail(`has an unmatched ) at character ${this.#at}`)
    return source
  }

  #alternatives(options: Options): string {
    const own = { ...options }
    let out = ''
    while (this.#at < this.#chars.length && this.#peek() !== ')') {
      if (this.#take('|')) {
        out += '|'
        continue
      }
      const flags = this.#inlineOptions(own)
      if (flags === 'rest') {
        // (?i) holds to the end of the group, alternatives included.
        return `${out}(?:${this.#alternatives(own)})`
      }
      if (own.extended && this.#skipExtended()) continue
      out += this.#quantified(this.#atom(own))
    }
    return out
  }

  /** `(?i)` changes the options in place; `(?i:…)` is left to `#atom`. */
  #inlineOptions(options: Options): 'rest' | undefined {
    const match = /^\(\?([imx]*)(?:-([imx]+))?\)/.exec(this.#rest(16))
    if (!match || match[0] === '(?)') return undefined
    this.#at += match[0].length
    setOptions(options, match[1]!, match[2] ?? '')
    return 'rest'
  }

  #skipExtended(): boolean {
    if (/\s/.test(this.#peek())) {
      this.#at++
      return true
    }
    if (this.#peek() !== '#') return false
    while (this.#at < this.#chars.length && this.#chars[this.#at] !== '\n') this.#at++
    return true
  }

  #atom(options: Options): string {
    const char = this.#next()
    switch (char) {
      case '(':
        return this.#group(options)
      case '[':
        return this.#fold(this.#classBody(), options)
      case '.':
        return options.dotAll ? '\\p{Any}' : '[^\\n]'
      case '^':
        return '(?<![^\\n])'
      case '$':
        return '(?![^\\n])'
      case '\\':
        return this.#escape(options)
      default:
        return this.#literal(char.codePointAt(0)!, options)
    }
  }

  #literal(code: number, options: Options): string {
    if (!options.ignoreCase) return literal(code)
    const char = String.fromCodePoint(code)
    return char.toLowerCase() === char.toUpperCase() ? literal(code) : `[${ignoringCase(literal(code))}]`
  }

  /** `body` starts with `^` when negated: case is folded first, then negated. */
  #fold(body: string, options: Options): string {
    if (!options.ignoreCase) return `[${body}]`
    return body.startsWith('^') ? `[^${ignoringCase(body.slice(1))}]` : `[${ignoringCase(body)}]`
  }

  #group(options: Options): string {
    const rest = this.#rest(40)
    const plain = /^\?(:|=|!|<=|<!)/.exec(rest)
    if (plain) return this.#close(plain[0].length, `(${plain[0]}`, options)
    if (rest.startsWith('?>')) return this.#atomicOf(this.#close(2, '', options).slice(0, -1))
    if (rest.startsWith('?#')) {
      while (this.#at < this.#chars.length && this.#next() !== ')') {
        // a comment
      }
      return '(?:)'
    }
    const flags = /^\?([imx]*)(?:-([imx]+))?:/.exec(rest)
    if (flags) {
      const inner = { ...options }
      setOptions(inner, flags[1]!, flags[2] ?? '')
      return this.#close(flags[0].length, '(?:', inner)
    }
    const named = /^\?(?:<([A-Za-z_]\w*)>|'([A-Za-z_]\w*)')/.exec(rest)
    if (named) return this.#close(named[0].length, this.#capture ? `(?<n_${named[1] ?? named[2]}>` : '(?:', options)
    if (rest.startsWith('?')) throw this.#fail(`uses (${rest.slice(0, 4)}…, which is not supported`)
    return this.#close(0, this.#capture ? `(?<g${++this.#groups}>` : '(?:', options)
  }

  #close(skip: number, open: string, options: Options): string {
    this.#at += skip
    const inner = this.#alternatives(options)
    if (!this.#take(')')) throw this.#fail('has an unclosed (')
    return `${open}${inner})`
  }

  /** Matches what `source` matches first and never gives any of it back. */
  #atomicOf(source: string): string {
    const name = `a${++this.#atomic}`
    return `(?:(?=(?<${name}>${source}))\\k<${name}>)`
  }

  #quantified(atom: string): string {
    let out = atom
    for (let count = 0; ; count++) {
      const quantifier = this.#quantifier()
      if (quantifier === undefined) return out
      if (count > 0) out = `(?:${out})`
      const interval = quantifier.startsWith('{')
      if (this.#take('?')) out += `${quantifier}?`
      else if (!interval && this.#take('+')) out = this.#atomicOf(out + quantifier)
      else out += quantifier
    }
  }

  #quantifier(): string | undefined {
    const char = this.#peek()
    if (char === '*' || char === '+' || char === '?') return this.#next()
    if (char !== '{') return undefined
    const match = /^\{(\d*)(,?)(\d*)\}/.exec(this.#rest(32))
    if (!match || (match[1] === '' && match[3] === '')) return undefined
    this.#at += match[0].length
    return `{${match[1] === '' ? '0' : match[1]}${match[2]}${match[3]}}`
  }

  #escape(options: Options): string {
    const char = this.#peek()
    switch (char) {
      case 'b':
      case 'B': {
        this.#at++
        const boundary = `(?<=[${WORD_ALONE}])(?![${WORD_ALONE}])|(?<![${WORD_ALONE}])(?=[${WORD_ALONE}])`
        return char === 'b' ? `(?:${boundary})` : `(?!${boundary})`
      }
      case 'w':
      case 'W':
        this.#at++
        return char === 'w' ? `[${WORD_ALONE}]` : `[^${WORD_ALONE}]`
      case 'A':
        this.#at++
        return '(?<!\\p{Any})'
      case 'z':
        this.#at++
        return '(?!\\p{Any})'
      case 'Z':
        this.#at++
        return '(?!\\n?\\p{Any})'
      case 'R':
        this.#at++
        return '(?:\\r\\n|[\\n-\\r\\x85\\u2028\\u2029])'
      case 'N':
        this.#at++
        return '[^\\n]'
      case 'O':
        this.#at++
        return '\\p{Any}'
      case 'k': {
        const match = /^k(?:<([^>]+)>|'([^']+)')/.exec(this.#rest(64))
        if (!match) throw this.#fail('has \\k without a name')
        this.#at += match[0].length
        const name = match[1] ?? match[2]!
        return /^\d+$/.test(name) ? `\\k<g${name}>` : `\\k<n_${name}>`
      }
      case 'G':
      case 'K':
      case 'X':
      case 'g':
        throw this.#fail(`uses \\${char}, which is not supported`)
      default:
        if (/[1-9]/.test(char)) {
          this.#at++
          return `\\k<g${char}>`
        }
    }
    const item = this.#classEscape()
    return item.code === undefined ? this.#fold(item.body, options) : this.#literal(item.code, options)
  }

  /** What follows a backslash, where a class may have it too: a set, or one code point. */
  #classEscape(): { body: string; code?: number } {
    const char = this.#next()
    const lower = char.toLowerCase()
    if (Object.hasOwn(SHORTHANDS, lower)) {
      const set = SHORTHANDS[lower]!
      return { body: char === lower ? set : `^${set}` }
    }
    if (lower === 'p' && this.#take('{')) {
      let name = ''
      while (this.#peek() !== '}') name += this.#next()
      this.#at++
      const inverted = name.startsWith('^')
      const body = propertyClass(inverted ? name.slice(1) : name)
      if (body === undefined) throw this.#fail(`names the unknown property \\p{${name}}`)
      return { body: inverted !== (char === 'P') ? `^${body}` : body }
    }
    const code = this.#codeEscape(char)
    return { body: literal(code), code }
  }

  #codeEscape(char: string): number {
    const controls: Record<string, number> = { t: 9, n: 10, v: 11, f: 12, r: 13, a: 7, e: 27 }
    if (Object.hasOwn(controls, char)) return controls[char]!
    const hex = char === 'x' ? /^(?:\{([0-9A-Fa-f]{1,8})\}|([0-9A-Fa-f]{1,2}))/ : char === 'u' ? /^([0-9A-Fa-f]{4})/ : undefined
    if (hex) {
      const match = hex.exec(this.#rest(10))
      if (!match) throw this.#fail(`has \\${char} without hexadecimal digits`)
      this.#at += match[0].length
      const code = Number.parseInt(match[1] ?? match[2]!, 16)
      if (code > 0x10ffff) throw this.#fail(`has \\${char}${match[0]}, beyond U+10FFFF`)
      return code
    }
    if (char === '0') {
      const match = /^[0-7]{0,2}/.exec(this.#rest(2))!
      this.#at += match[0].length
      return Number.parseInt(`0${match[0]}`, 8)
    }
    return char.codePointAt(0)!
  }

  /** After `[`: the body of a JavaScript class, `^` first when negated. */
  #classBody(): string {
    const negated = this.#take('^')
    const parts: string[] = []
    let current = ''
    let first = true
    for (;;) {
      const char = this.#next()
      if (char === ']' && !first) break
      first = false
      if (char === '&' && this.#take('&')) {
        parts.push(current)
        current = ''
        continue
      }
      const item = this.#classItem(char)
      if (item.code === undefined) {
        current += item.body.startsWith('^') ? `[${item.body}]` : item.body
        continue
      }
      // A hyphen is a range unless it is the last thing in the class.
      if (this.#peek() === '-' && this.#chars[this.#at + 1] !== ']') {
        this.#at++
        const end = this.#classItem(this.#next())
        if (end.code === undefined) current += `${item.body}${literal(0x2d)}${end.body.startsWith('^') ? `[${end.body}]` : end.body}`
        else current += `${item.body}-${end.body}`
      } else current += item.body
    }
    parts.push(current)
    const body = parts.length === 1 ? current : parts.map((part) => `[${part}]`).join('&&')
    return negated ? `^${parts.length === 1 ? body : `[${body}]`}` : body
  }

  #classItem(char: string): { body: string; code?: number } {
    if (char === '\\') {
      if (this.#take('b')) return { body: '\\x08', code: 8 }
      return this.#classEscape()
    }
    if (char === '[') {
      const posix = /^:(\^?)([a-z]+):\]/.exec(this.#rest(16))
      if (!posix) return { body: `[${this.#classBody()}]` }
      const body = posixClass(posix[2]!)
      if (body === undefined) throw this.#fail(`names the unknown class [:${posix[2]}:]`)
      this.#at += posix[0].length
      return { body: posix[1] ? `^${body}` : body }
    }
    const code = char.codePointAt(0)!
    return { body: literal(code), code }
  }

  #peek(): string {
    return this.#chars[this.#at] ?? ''
  }

  #rest(length: number): string {
    return this.#chars.slice(this.#at, this.#at + length).join('')
  }

  #take(char: string): boolean {
    if (this.#chars[this.#at] !== char) return false
    this.#at++
    return true
  }

  #next(): string {
    const char = this.#chars[this.#at++]
    if (char === undefined) throw this.#fail('ends too early')
    return char
  }
}

function setOptions(options: Options, on: string, off: string): void {
  for (const [letters, value] of [
    [on, true],
    [off, false],
  ] as const) {
    if (letters.includes('i')) options.ignoreCase = value
    if (letters.includes('m')) options.dotAll = value
    if (letters.includes('x')) options.extended = value
  }
}
