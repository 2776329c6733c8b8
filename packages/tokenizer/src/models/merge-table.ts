import { tokenizerError } from '../errors.ts'

/** Ranks fit beside a position in a double's 53 bits. */
const MAX_MERGES = 2 ** 21

/** Pair of token ids to the rank of its merge: a hash table in flat arrays, as half a million merges are many objects. */
export class MergeTable {
  readonly #lefts: Int32Array
  readonly #rights: Int32Array
  readonly #ranks: Int32Array
  readonly #results: Int32Array
  readonly #mask: number

  constructor(count: number) {
    if (count > MAX_MERGES)
      throw tokenizerError('BAD_TOKENIZER', `tokenizer.json: model.merges has ${count} entries, more than ${MAX_MERGES}`)
    const capacity = 2 ** Math.ceil(Math.log2(Math.max(count, 4) * 2))
    this.#mask = capacity - 1
    this.#lefts = new Int32Array(capacity)
    this.#rights = new Int32Array(capacity)
    this.#ranks = new Int32Array(capacity).fill(-1)
    this.#results = new Int32Array(count)
  }

  /** Of two merges of the same pair the later one holds. */
  set(left: number, right: number, rank: number, result: number): void {
    const slot = this.#slot(left, right)
    this.#lefts[slot] = left
    this.#rights[slot] = right
    this.#ranks[slot] = rank
    this.#results[rank] = result
  }

  /** The rank of the pair's merge, -1 when there is none. */
  rank(left: number, right: number): number {
    return this.#ranks[this.#slot(left, right)]!
  }

  /** The token that the merge of this rank makes. */
  result(rank: number): number {
    return this.#results[rank]!
  }

  #slot(left: number, right: number): number {
    let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b)
    hash ^= hash >>> 15
    for (let slot = hash & this.#mask; ; slot = (slot + 1) & this.#mask)
      if (this.#ranks[slot]! < 0 || (this.#lefts[slot] === left && this.#rights[slot] === right)) return slot
  }
}
