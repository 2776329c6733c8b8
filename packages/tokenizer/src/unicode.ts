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

/** Node has these since 20; TypeScript's ES2023 does not know them. */
interface WellFormed {
  isWellFormed(): boolean
  toWellFormed(): string
}

/** Rust strings hold no lone surrogates: each becomes U+FFFD. */
export function wellFormed(text: string): string {
  const known = text as unknown as WellFormed
  return known.isWellFormed() ? text : known.toWellFormed()
}
