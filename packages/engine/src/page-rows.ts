import { PAGE_TOKENS } from '@aphrodite/tensor'
import type { PageTable } from './cache-groups.ts'
import type { Sequence } from './sequence.ts'

/**
 * The page tables of one group in a staging array that keeps its content. A sequence that has the row of the step before gains
 * a page every PAGE_TOKENS steps: only what has changed is written.
 */
export class PageRows {
  readonly #group: number
  #start = -1
  #columns = -1
  /** What stands in each row: columns [first, count) of the sequence's table at that epoch, and zeros. */
  readonly #owners: (Sequence | undefined)[] = []
  readonly #epochs: number[] = []
  readonly #firsts: number[] = []
  readonly #counts: number[] = []

  constructor(group: number) {
    this.#group = group
  }

  /** Where the rows of the next step are. Elsewhere than before: nothing stands there yet. */
  place(start: number, columns: number): void {
    if (start === this.#start && columns === this.#columns) return
    this.#start = start
    this.#columns = columns
    this.#owners.length = this.#epochs.length = this.#firsts.length = this.#counts.length = 0
  }

  /** The rows of `sequences` sequences, and the slots of `tokens` tokens; those beyond the batch are empty and have the slot 0. */
  write(ints: Int32Array, batch: readonly Sequence[], sequences: number, slots: number, tokens: number): void {
    let at = slots
    for (let i = 0; i < batch.length; i++) {
      const s = batch[i]!
      const table = s.tables[this.#group] as PageTable
      const { pages } = table
      const { computed, scheduled } = s
      for (let t = 0; t < scheduled; t++) {
        const position = computed + t
        ints[at++] = pages[(position / PAGE_TOKENS) | 0]! * PAGE_TOKENS + (position % PAGE_TOKENS)
      }
      this.#row(ints, i, s, table)
    }
    ints.fill(0, at, slots + tokens)
    for (let i = batch.length; i < sequences; i++) {
      if (this.#counts[i] === 0) continue
      const row = this.#start + i * this.#columns
      ints.fill(0, row, row + this.#columns)
      this.#owners[i] = undefined
      this.#epochs[i] = this.#firsts[i] = this.#counts[i] = 0
    }
    // Rows that are not of this step are overwritten by who knows what.
    this.#owners.length = this.#epochs.length = this.#firsts.length = this.#counts.length = sequences
  }

  #row(ints: Int32Array, i: number, s: Sequence, { pages, first, count }: PageTable): void {
    const row = this.#start + i * this.#columns
    if (this.#owners[i] === s && this.#epochs[i] === s.epoch) {
      for (let c = this.#firsts[i]!; c < first; c++) ints[row + c] = 0
      for (let c = this.#counts[i]!; c < count; c++) ints[row + c] = pages[c]!
    } else {
      for (let c = 0; c < count; c++) ints[row + c] = pages[c]!
      ints.fill(0, row + count, row + this.#columns)
      this.#owners[i] = s
      this.#epochs[i] = s.epoch
    }
    this.#firsts[i] = first
    this.#counts[i] = count
  }
}
