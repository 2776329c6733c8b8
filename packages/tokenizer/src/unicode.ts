import { SPACE } from './regex-classes.ts'

const LEADING_SPACE = new RegExp(`^[${SPACE}]+`, 'v')
const TRAILING_SPACE = new RegExp(`[${SPACE}]`, 'v')

/** How many UTF-16 units of White_Space a text begins with. */
export function leadingSpace(text: string): number {
  return LEADING_SPACE.exec(text)?.[0].length ?? 0
}

/** Where the White_Space that a text ends with begins. All of White_Space is one UTF-16 unit long. */
export function trailingSpace(text: string): number {
  let end = text.length
  while (end > 0 && TRAILING_SPACE.test(text[end - 1]!)) end--
  return end
}

/** Lower case character by character: no final sigma, as in Rust's `char::to_lowercase`. */
export function lowercase(text: string): string {
  return text.replaceAll('Σ', 'σ').toLowerCase()
}

/** Rust strings hold no lone surrogates: each becomes U+FFFD. */
export function wellFormed(text: string): string {
  return LONE_SURROGATE.test(text) ? text.replace(LONE_SURROGATES, '\ufffd') : text
}

const LONE_SURROGATE = /\p{Cs}/u
const LONE_SURROGATES = /\p{Cs}/gu
