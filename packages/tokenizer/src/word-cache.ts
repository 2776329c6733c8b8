const LONGEST_WORD = 64
const GENERATION = 16_384

/** Ids of words met lately: two generations, so that a full cache loses only what was not used for a while. */
export class WordCache {
  #young = new Map<string, readonly number[]>()
  #old = new Map<string, readonly number[]>()

  get(word: string): readonly number[] | undefined {
    const ids = this.#young.get(word)
    if (ids !== undefined) return ids
    const older = this.#old.get(word)
    if (older !== undefined) this.set(word, older)
    return older
  }

  set(word: string, ids: readonly number[]): void {
    if (word.length > LONGEST_WORD) return
    if (this.#young.size >= GENERATION) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(word, ids)
  }
}
