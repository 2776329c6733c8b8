import { PAGE_TOKENS } from '@aphrodite/tensor'
import { BlockAllocator } from './block-allocator.ts'
import { type GroupTable, PageTable } from './cache-groups.ts'
import { type BlockNames, PrefixTable } from './prefix-cache.ts'
import type { Sequence } from './sequence.ts'

/** Blocks that hold `tokens` tokens. */
export const blocksFor = (tokens: number): number => Math.ceil(tokens / PAGE_TOKENS)

/**
 * The most blocks that one sequence holds at once: all of its own, or those that the queries of one step look at (a window
 * before the first of them, and they themselves), at any place in the first and the last block.
 */
export const blocksPerSequence = (window: number, maxLength: number, stepTokens: number): number =>
  window === 0 ? blocksFor(maxLength) : Math.min(blocksFor(maxLength), blocksFor(window - 1 + stepTokens) + 1)

/** Layers that page their keys and values, all of one window (0: every token counts), with a pool of blocks of their own. */
export class PagedGroup {
  readonly kind = 'paged'
  readonly window: number
  readonly allocator: BlockAllocator
  readonly #maxPerSequence: number
  #cached: PrefixTable | undefined

  constructor(window: number, blocks: number, maxPerSequence: number) {
    this.window = window
    this.allocator = new BlockAllocator(blocks)
    this.#maxPerSequence = maxPerSequence
  }

  /** Turns the prefix cache on. */
  remember(): void {
    const cached = new PrefixTable(this.allocator.blocks)
    this.#cached = cached
    this.allocator.onReuse = (block) => cached.forget(block)
  }

  open(): PageTable {
    return new PageTable()
  }

  reservable(table: GroupTable, upTo: number): number {
    return Math.min(upTo, ((table as PageTable).count + this.allocator.free) * PAGE_TOKENS)
  }

  reserve(table: GroupTable, tokens: number): void {
    const t = table as PageTable
    for (let missing = blocksFor(tokens) - t.count; missing > 0; missing--) t.push(this.allocator.allocate())
  }

  fits(table: GroupTable, length: number, spare: number): boolean {
    const t = table as PageTable
    // The token that comes next wants its place too.
    const missing = Math.min(blocksFor(length + 1) - t.count, this.#maxPerSequence - (t.count - t.first))
    return missing + spare <= this.allocator.free
  }

  /** The first block that a query at position `computed` or later looks at. */
  #firstSeen(computed: number): number {
    return this.window === 0 ? 0 : Math.floor(Math.max(0, computed - this.window + 1) / PAGE_TOKENS)
  }

  /** The greatest number of blocks, at most `most`, after which the sequence could go on with what is cached here. */
  longestHit(sequence: Sequence, names: BlockNames, most: number): number {
    const cached = this.#cached!
    const found = (block: number): boolean => cached.find(sequence.blockName(names, block), sequence.tokens, block * PAGE_TOKENS) !== 0
    if (this.window === 0) {
      let blocks = 0
      while (blocks < most && found(blocks)) blocks++
      return blocks
    }
    // From the right: a hole at block i means that only the blocks before it can do.
    let end = most
    let block = end - 1
    while (end > 0) {
      const first = this.#firstSeen(end * PAGE_TOKENS)
      while (block >= first && found(block)) block--
      if (block < first) return end
      end = block
      block = end - 1
    }
    return 0
  }

  /** Holds the first `blocks` blocks, found by longestHit, or those of them that are still looked at. */
  take(sequence: Sequence, names: BlockNames, table: PageTable, blocks: number): void {
    const first = this.#firstSeen(blocks * PAGE_TOKENS)
    for (let block = 0; block < blocks; block++) {
      const page = block < first ? 0 : this.#cached!.find(sequence.blockName(names, block), sequence.tokens, block * PAGE_TOKENS)
      if (page !== 0) this.allocator.retain(page)
      table.push(page)
    }
    table.first = first
  }

  /** Whether a table has all that a sequence with the same beginning needs after `blocks` blocks. */
  holds(table: PageTable, blocks: number): boolean {
    return table.count >= blocks && table.first <= this.#firstSeen(blocks * PAGE_TOKENS)
  }

  share(from: PageTable, to: PageTable, blocks: number): void {
    const first = this.#firstSeen(blocks * PAGE_TOKENS)
    for (let block = 0; block < blocks; block++) {
      const page = block < first ? 0 : from.pages[block]!
      if (page !== 0) this.allocator.retain(page)
      to.push(page)
    }
    to.first = first
  }

  /** Lets others find a full block under its name. */
  publish(sequence: Sequence, table: PageTable, name: string, block: number): void {
    const page = table.pages[block]!
    if (page !== 0) this.#cached!.insert(name, page, sequence.tokens, block * PAGE_TOKENS)
  }

  /** Gives back the blocks that fell out of the window. */
  trim(table: GroupTable, computed: number): void {
    if (this.window === 0) return
    const t = table as PageTable
    const first = Math.min(this.#firstSeen(computed), t.count)
    for (; t.first < first; t.first++) {
      this.#give(t.pages[t.first]!)
      t.pages[t.first] = 0
    }
  }

  release(table: GroupTable): void {
    const t = table as PageTable
    // The last block first: a beginning is worth more than what follows it, so it should be reused later.
    for (let block = t.count - 1; block >= t.first; block--) this.#give(t.pages[block]!)
    t.pages.fill(0, 0, t.count)
    t.first = 0
    t.count = 0
  }

  reset(): void {
    if (!this.#cached) return
    for (const block of this.#cached.blocks()) {
      if (this.allocator.references(block) > 0) continue
      this.#cached.forget(block)
      this.allocator.discard(block)
    }
  }

  assertBalanced(): void {
    this.allocator.assertBalanced()
  }

  #give(page: number): void {
    this.allocator.release(page, this.#cached?.has(page) ?? false)
  }
}
