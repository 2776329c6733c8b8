import { engineError } from './errors.ts'

/**
 * Counts who uses which block of a pool. Free blocks stand in a list, least recently used first, and keep what they hold
 * until they are handed out again: that is what the prefix cache lives on. Block 0 is never handed out (padding points at
 * it), so it serves as the head of the list.
 */
export class BlockAllocator {
  /** Blocks of the pool, block 0 included. */
  readonly blocks: number
  /** Called with a block that is about to be handed out, so that whoever remembers its content forgets it. */
  onReuse: (block: number) => void = () => {}
  readonly #references: Int32Array
  readonly #next: Int32Array
  readonly #previous: Int32Array
  #free: number

  constructor(blocks: number) {
    this.blocks = blocks
    this.#references = new Int32Array(blocks)
    this.#next = new Int32Array(blocks)
    this.#previous = new Int32Array(blocks)
    this.#free = 0
    for (let block = 1; block < blocks; block++) this.#link(block, this.#previous[0]!)
  }

  get free(): number {
    return this.#free
  }
  get used(): number {
    return this.blocks - 1 - this.#free
  }
  references(block: number): number {
    return this.#references[block]!
  }

  /** The least recently used free block, with one reference. There must be one: look at `free` first. */
  allocate(): number {
    const block = this.#next[0]!
    if (block === 0) throw engineError('UNBALANCED', `all ${this.blocks - 1} blocks are in use; the scheduler should have seen that`)
    this.#unlink(block)
    this.#references[block] = 1
    this.onReuse(block)
    return block
  }

  /** One more user of a block, free or not. */
  retain(block: number): void {
    this.#check(block)
    if (this.#references[block] === 0) this.#unlink(block)
    this.#references[block]! += 1
  }

  /** One user less. The last one's block goes to the end of the list if its content is worth keeping, to the front if not. */
  release(block: number, keep: boolean): void {
    this.#check(block)
    if (this.#references[block] === 0) throw engineError('UNBALANCED', `block ${block} was released more often than it was taken`)
    this.#references[block]! -= 1
    if (this.#references[block] === 0) this.#link(block, keep ? this.#previous[0]! : 0)
  }

  /** Moves a free block to the front: its content has lost its worth. */
  discard(block: number): void {
    this.#check(block)
    if (this.#references[block] !== 0) return
    this.#unlink(block)
    this.#link(block, 0)
  }

  /** Throws UNBALANCED unless exactly `used` blocks are in use and every other one is in the list once. */
  assertBalanced(used = 0): void {
    let listed = 0
    for (let block = this.#next[0]!, last = 0; block !== 0; last = block, block = this.#next[block]!) {
      if (this.#references[block] !== 0) throw engineError('UNBALANCED', `block ${block} is free and has ${this.#references[block]} users`)
      if (this.#previous[block] !== last) throw engineError('UNBALANCED', `the free list is broken at block ${block}`)
      if (++listed > this.blocks) throw engineError('UNBALANCED', 'the free list runs in a circle')
    }
    let referenced = 0
    for (let block = 1; block < this.blocks; block++) if (this.#references[block]! > 0) referenced++
    if (listed !== this.#free || listed + referenced !== this.blocks - 1 || referenced !== used)
      throw engineError(
        'UNBALANCED',
        `${referenced} blocks are in use where ${used} should be; ${listed} of ${this.blocks - 1} are listed as free, ${this.#free} counted`,
      )
  }

  #link(block: number, after: number): void {
    const before = this.#next[after]!
    this.#next[after] = block
    this.#previous[block] = after
    this.#next[block] = before
    this.#previous[before] = block
    this.#free++
  }

  #unlink(block: number): void {
    const before = this.#previous[block]!
    const after = this.#next[block]!
    this.#next[before] = after
    this.#previous[after] = before
    this.#free--
  }

  #check(block: number): void {
    if (!(block > 0 && block < this.blocks)) throw engineError('UNBALANCED', `there is no block ${block} in a pool of ${this.blocks}`)
  }
}
