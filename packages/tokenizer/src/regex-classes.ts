/** Character sets as bodies of a JavaScript class with the `v` flag; the regular expressions of tokenizer.json mean Unicode by all of them. */
export const SPACE = '\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000'
export const WORD = '\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}'
/** Rust's own `\w` has the joiners too. */
export const WORD_JOINED = `${WORD}\\u200c\\u200d`
/** `\w` and `\b` outside a class: Oniguruma looks the first 256 characters up in Latin-1's table, where these are words. */
export const WORD_ALONE = `${WORD}\\xb2\\xb3\\xb9\\xbc-\\xbe`
const HEX = '0-9A-Fa-f'

/** `\s` and its like, lower case: the set; upper case: all but it. */
export const SHORTHANDS: Readonly<Record<string, string>> = { s: SPACE, w: WORD, d: '\\p{Nd}', h: HEX }

/** `[:alpha:]` and `\p{Alpha}`. */
const POSIX: Readonly<Record<string, string>> = {
  alnum: '\\p{Alphabetic}\\p{Nd}',
  alpha: '\\p{Alphabetic}',
  ascii: '\\x00-\\x7f',
  blank: '\\p{Zs}\\t',
  cntrl: '\\p{Cc}',
  digit: '\\p{Nd}',
  graph: '[\\p{Any}--[\\p{Cc}\\p{Cn}\\p{Cs}\\p{White_Space}]]',
  lower: '\\p{Lowercase}',
  print: '[\\p{Any}--[\\p{Cc}\\p{Cn}\\p{Cs}]]',
  punct: '\\p{P}\\p{S}',
  space: SPACE,
  upper: '\\p{Uppercase}',
  xdigit: HEX,
  word: WORD,
}

/** The body of a class for a POSIX bracket's name. */
export const posixClass = (name: string): string | undefined => (Object.hasOwn(POSIX, name) ? POSIX[name] : undefined)

/** The body of a class for the name in `\p{…}`, which may be written in any case, with spaces, `_` or `-`. */
export function propertyClass(name: string): string | undefined {
  const plain = name.toLowerCase().replace(/[\s_-]/g, '')
  const posix = plain === 'word' ? WORD_ALONE : posixClass(plain)
  if (posix !== undefined) return posix
  const words = name.split(/[\s_-]+/).filter((word) => word.length > 0)
  const titled = words.map((word) => word[0]!.toUpperCase() + word.slice(1).toLowerCase()).join('_')
  const candidates = [name, titled, name.toUpperCase(), titled.replace(/_/g, '')]
  for (const candidate of candidates)
    for (const body of [`\\p{${candidate}}`, `\\p{Script=${candidate}}`]) {
      try {
        new RegExp(`[${body}]`, 'v')
        return body
      } catch {
        // not this one
      }
    }
  return undefined
}

const escapeUnit = (code: number): string => `\\u{${code.toString(16)}}`

/** A code point as it may stand anywhere in a `v` expression, in a class too. */
export function literal(code: number): string {
  const char = String.fromCodePoint(code)
  return /^[A-Za-z0-9_ ]$/.test(char) ? char : escapeUnit(code)
}

/** The class of everything that `body` matches when case is ignored. */
export function ignoringCase(body: string): string {
  if (/^[A-Za-z]$/.test(body) && !/[kKsS]/.test(body)) return body.toLowerCase() + body.toUpperCase()
  const matcher = new RegExp(`^[${body}]$`, 'iv')
  let out = ''
  let start = -1
  for (let code = 0; code <= 0x110000; code++) {
    const inside = code < 0x110000 && (code < 0xd800 || code > 0xdfff) && matcher.test(String.fromCodePoint(code))
    if (inside && start < 0) start = code
    else if (!inside && start >= 0) {
      out += escapeUnit(start) + (code - 1 > start ? `-${escapeUnit(code - 1)}` : '')
      start = -1
    }
  }
  return out
}
