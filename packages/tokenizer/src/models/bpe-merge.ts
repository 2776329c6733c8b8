import type { MergeTable } from './merge-table.ts'

const NONE = 2 ** 31 - 1

/** Merges the pair of the lowest rank, the leftmost of equals, until none is left: quadratic, for short pieces. Uses up `symbols`. */
export function scanMerge(symbols: number[], merges: MergeTable, out: number[]): void {
  const rankAt = (i: number): number => {
    if (i + 1 >= symbols.length) return NONE
    const rank = merges.rank(symbols[i]!, symbols[i + 1]!)
    return rank < 0 ? NONE : rank
  }
  const ranks: number[] = []
  for (let i = 0; i < symbols.length; i++) ranks.push(rankAt(i))
  for (;;) {
    let best = NONE
    let at = -1
    for (let i = 0; i < ranks.length; i++) {
      if (ranks[i]! < best) {
        best = ranks[i]!
        at = i
      }
    }
    if (at < 0) break
    symbols[at] = merges.result(best)
    for (let i = at + 1; i + 1 < symbols.length; i++) {
      symbols[i] = symbols[i + 1]!
      ranks[i] = ranks[i + 1]!
    }
    symbols.pop()
    ranks.pop()
    ranks[at] = rankAt(at)
    if (at > 0) ranks[at - 1] = rankAt(at - 1)
  }
  for (const symbol of symbols) out.push(symbol)
}

const POSITIONS = 2 ** 32

/** The same with a heap of candidates: n log n, for pieces of any length. Yields every 8,192 candidates. */
export function* heapMerge(symbols: Int32Array, merges: MergeTable, out: number[]): Generator<void> {
  const count = symbols.length
  const next = Int32Array.from({ length: count }, (_, i) => (i + 1 < count ? i + 1 : -1))
  const previous = Int32Array.from({ length: count }, (_, i) => i - 1)
  const gone = new Uint8Array(count)
  // A candidate is one number, its rank above its position: the order of the numbers is that of the merges.
  const heap = new Heap()
  for (let i = 0; i + 1 < count; i++) {
    const rank = merges.rank(symbols[i]!, symbols[i + 1]!)
    if (rank >= 0) heap.append(rank * POSITIONS + i)
  }
  yield
  heap.heapify()
  for (let pops = 1; heap.size > 0; pops++) {
    if ((pops & 8191) === 0) yield
    const candidate = heap.pop()
    const at = candidate % POSITIONS
    const right = next[at]!
    if (gone[at] === 1 || right < 0) continue
    const result = merges.result((candidate - at) / POSITIONS)
    const rank = merges.rank(symbols[at]!, symbols[right]!)
    // The pair that was here may have changed since.
    if (rank < 0 || merges.result(rank) !== result) continue
    symbols[at] = result
    gone[right] = 1
    const after = next[right]!
    next[at] = after
    if (after >= 0) previous[after] = at
    const before = previous[at]!
    if (before >= 0) {
      const pair = merges.rank(symbols[before]!, result)
      if (pair >= 0) heap.push(pair * POSITIONS + before)
    }
    if (after >= 0) {
      const pair = merges.rank(result, symbols[after]!)
      if (pair >= 0) heap.push(pair * POSITIONS + at)
    }
  }
  for (let i = 0; i < count; i++) if (gone[i] === 0) out.push(symbols[i]!)
}

/** A binary heap of numbers, least first. */
class Heap {
  #items = new Float64Array(1024)
  size = 0

  /** Adds without ordering; `heapify` afterwards. */
  append(item: number): void {
    if (this.size === this.#items.length) {
      const wider = new Float64Array(this.size * 2)
      wider.set(this.#items)
      this.#items = wider
    }
    this.#items[this.size++] = item
  }

  heapify(): void {
    for (let i = (this.size >> 1) - 1; i >= 0; i--) this.#sink(i, this.#items[i]!)
  }

  push(item: number): void {
    this.append(item)
    const items = this.#items
    let at = this.size - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (items[parent]! <= item) break
      items[at] = items[parent]!
      at = parent
    }
    items[at] = item
  }

  pop(): number {
    const top = this.#items[0]!
    const last = this.#items[--this.size]!
    if (this.size > 0) this.#sink(0, last)
    return top
  }

  #sink(from: number, item: number): void {
    const items = this.#items
    const size = this.size
    let at = from
    for (;;) {
      let child = 2 * at + 1
      if (child >= size) break
      if (child + 1 < size && items[child + 1]! < items[child]!) child++
      if (items[child]! >= item) break
      items[at] = items[child]!
      at = child
    }
    items[at] = item
  }
}
