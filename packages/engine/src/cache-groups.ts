import type { AttentionMetadata } from '@aphrodite/layers'
import { PAGE_TOKENS } from '@aphrodite/tensor'
import type { PagedGroup } from './paged-group.ts'
import { BlockNames } from './prefix-cache.ts'
import type { Sequence } from './sequence.ts'
import type { StateGroup } from './state-group.ts'

/** What one sequence holds of one group: pages or a slot. */
export type GroupTable = PageTable | SlotTable

/** Column b is the page of tokens [16 b, 16 b + 16); 0 where it is not held (any more). Columns [first, count) are held. */
export class PageTable {
  readonly kind = 'paged'
  pages = new Int32Array(8)
  first = 0
  count = 0

  push(page: number): void {
    if (this.count === this.pages.length) {
      const larger = new Int32Array(this.pages.length * 2)
      larger.set(this.pages)
      this.pages = larger
    }
    this.pages[this.count++] = page
  }
}

/** 0: none. */
export class SlotTable {
  readonly kind = 'state'
  slot = 0
}

export type CacheGroup = PagedGroup | StateGroup
export type GroupKind = AttentionMetadata['kind']

/**
 * The caches of all layers, by what they need: one group for each window of paged layers, one for states. A sequence holds
 * something of every group, and only what all of them have counts as computed.
 */
export class CacheGroups {
  readonly groups: readonly CacheGroup[]
  readonly names: BlockNames | undefined
  readonly #paged: readonly PagedGroup[]

  constructor(groups: readonly CacheGroup[], enablePrefixCaching: boolean) {
    this.groups = groups
    this.#paged = groups.filter((g) => g.kind === 'paged')
    // A state is one moment of a sequence: it could only be shared where a snapshot was kept, and none is.
    const shareable = this.#paged.length > 0 && this.#paged.length === groups.length
    this.names = enablePrefixCaching && shareable ? new BlockNames() : undefined
    if (this.names) for (const group of this.#paged) group.remember()
  }

  open(): GroupTable[] {
    return this.groups.map((group) => group.open())
  }

  /** The most tokens, up to `upTo`, that the sequence could have room for now. */
  reservable(sequence: Sequence, upTo: number): number {
    let tokens = upTo
    for (let g = 0; g < this.groups.length; g++) tokens = Math.min(tokens, this.groups[g]!.reservable(sequence.tables[g]!, tokens))
    return tokens
  }

  /** Room for the first `tokens` tokens in every group, or in none. */
  reserve(sequence: Sequence, tokens: number): boolean {
    if (this.reservable(sequence, tokens) < tokens) return false
    for (let g = 0; g < this.groups.length; g++) this.groups[g]!.reserve(sequence.tables[g]!, tokens)
    return true
  }

  /** Whether all of the sequence would fit with `spare` blocks left in every pool. */
  fits(sequence: Sequence, spare: number): boolean {
    return this.groups.every((group, g) => group.fits(sequence.tables[g]!, sequence.length, spare))
  }

  /**
   * Gives a sequence that holds nothing what others have computed already: the longest beginning in full blocks that every
   * group still has, one token short of the whole. Returns its tokens.
   */
  attach(sequence: Sequence): number {
    const most = Math.floor(Math.min(sequence.length - 1, sequence.known) / PAGE_TOKENS)
    const bypass = sequence.index === 0 && sequence.request.needsPromptRows
    const blocks = bypass ? 0 : Math.max(this.#shareSibling(sequence, most), this.#takeCached(sequence, most))
    sequence.computed = blocks * PAGE_TOKENS
    sequence.committed = blocks
    return sequence.computed
  }

  /** The full blocks of the prompt that another answer of the request holds now. */
  #shareSibling(sequence: Sequence, most: number): number {
    if (this.names || this.#paged.length !== this.groups.length || sequence.outputLength > 0) return 0
    for (const other of sequence.request.answers) {
      if (other === sequence || other.finished || other.computed < most * PAGE_TOKENS) continue
      if (!this.#paged.every((group, g) => group.holds(other.tables[g] as PageTable, most))) continue
      for (const [g, group] of this.#paged.entries()) group.share(other.tables[g] as PageTable, sequence.tables[g] as PageTable, most)
      return most
    }
    return 0
  }

  #takeCached(sequence: Sequence, most: number): number {
    const names = this.names
    if (!names) return 0
    let blocks = most
    // A shorter hit in one group may be no hit in another: until they agree.
    for (let before = -1; before !== blocks && blocks > 0; ) {
      before = blocks
      for (const group of this.#paged) blocks = group.longestHit(sequence, names, blocks)
    }
    if (blocks > 0) for (const [g, group] of this.#paged.entries()) group.take(sequence, names, sequence.tables[g] as PageTable, blocks)
    return blocks
  }

  /**
   * After a step that left `computed` tokens in the cache: full blocks become findable, and what no later token looks at is given
   * back.
   */
  commit(sequence: Sequence, computed: number): void {
    const full = Math.floor(computed / PAGE_TOKENS)
    const { groups, names } = this
    if (names && full > sequence.committed) {
      for (let block = sequence.committed; block < full; block++) {
        const name = sequence.blockName(names, block)
        for (const [g, group] of this.#paged.entries()) group.publish(sequence, sequence.tables[g] as PageTable, name, block)
      }
    }
    sequence.committed = full
    for (let g = 0; g < groups.length; g++) groups[g]!.trim(sequence.tables[g]!, computed)
  }

  /** Everything back; the sequence has nothing computed any more. */
  release(sequence: Sequence): void {
    for (const [g, group] of this.groups.entries()) group.release(sequence.tables[g]!)
    sequence.computed = 0
    sequence.committed = 0
    sequence.epoch++
  }

  /** Drops cached prefixes that nobody uses. */
  reset(): void {
    for (const group of this.#paged) group.reset()
  }

  /** Throws UNBALANCED unless nothing is held. */
  assertBalanced(): void {
    for (const group of this.groups) group.assertBalanced()
  }

  /** Blocks of the paged groups, block 0 of each left out. */
  get blocks(): number {
    return this.#paged.reduce((sum, group) => sum + group.allocator.blocks - 1, 0)
  }
  get blocksUsed(): number {
    return this.#paged.reduce((sum, group) => sum + group.allocator.used, 0)
  }
}
