const NAMES =
  'Latin Cyrillic Greek Arabic Hebrew Thai Hangul Devanagari Bengali Tamil Telugu Kannada Malayalam Gujarati Gurmukhi Oriya Sinhala Lao Tibetan Myanmar Georgian Armenian Ethiopic Cherokee Mongolian Khmer Syriac Thaana Bopomofo Braille Canadian_Aboriginal Ogham Runic Yi Coptic Gothic Inherited Common'.split(
    ' ',
  )

const SCRIPTS = NAMES.map((name) => [name, new RegExp(`\\p{Script=${name}}`, 'u')] as const)
const HAN = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\u30fc]/u

/** The script of a character; Japanese kana count as Han, and a space goes with anything. */
export function scriptOf(char: string): string {
  if (char === ' ') return 'Any'
  if (HAN.test(char)) return 'Han'
  return SCRIPTS.find(([, regex]) => regex.test(char))?.[0] ?? 'Other'
}
