/** What may be part of something that the clean-up rewrites; nothing else is ever touched. */
const TOUCHED = /[ .?!,'ntmsver]/

/** Hugging Face's `clean_up_tokenization_spaces` for text that comes in parts. */
export class CleanUp {
  #held = ''

  /** The part of the text so far that what follows cannot change. */
  push(text: string): string {
    const whole = this.#held + text
    // Everything that is rewritten begins with a space: text is settled up to the first space after the last
    // character that no rule knows.
    let settled = whole.length
    while (settled > 0 && TOUCHED.test(whole[settled - 1]!)) settled--
    const space = whole.indexOf(' ', settled)
    settled = space < 0 ? whole.length : space
    this.#held = whole.slice(settled)
    return cleanUp(whole.slice(0, settled))
  }

  flush(): string {
    const text = cleanUp(this.#held)
    this.#held = ''
    return text
  }
}

export function cleanUp(text: string): string {
  return text
    .replaceAll(' .', '.')
    .replaceAll(' ?', '?')
    .replaceAll(' !', '!')
    .replaceAll(' ,', ',')
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re")
}
