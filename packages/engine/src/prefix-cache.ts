import { hash, randomBytes } from 'node:crypto'
import { PAGE_TOKENS } from '@aphrodite/tensor'

/**
 * Names full blocks: the name of a block is the SHA-256 of the name before it and its own ids, so that it stands for the
 * whole beginning of a sequence. The first name carries a salt of this engine (nobody outside can compute names), the
 * request's own salt, and the model's class of the sequence (equal ids, other keys and values).
 */
export class BlockNames {
  readonly #salt = randomBytes(32)
  /** Parent name and ids, side by side: what is hashed. */
  readonly #message = Buffer.alloc(32 + PAGE_TOKENS * 4)
  readonly #ids = new Int32Array(this.#message.buffer, this.#message.byteOffset + 32, PAGE_TOKENS)

  /** The name that stands before the first block. */
  root(cacheSalt: string, sequenceClass: number): string {
    return hash('sha256', Buffer.concat([this.#salt, Buffer.from(`${sequenceClass}:${cacheSalt}`)]), 'binary')
  }

  /** The name of the block with tokens[start, start + PAGE_TOKENS), after `parent`. */
  next(parent: string, tokens: Int32Array, start: number): string {
    this.#message.write(parent, 0, 32, 'binary')
    for (let i = 0; i < PAGE_TOKENS; i++) this.#ids[i] = tokens[start + i]!
    return hash('sha256', this.#message, 'binary')
  }
}

/** Which block of one pool holds which name. A block stays here while it is free, until it is handed out anew. */
export class PrefixTable {
  readonly #blockOf = new Map<string, number>()
  readonly #nameOf: (string | undefined)[]
  readonly #ids: Int32Array

  constructor(blocks: number) {
    this.#nameOf = new Array<string | undefined>(blocks).fill(undefined)
    this.#ids = new Int32Array(blocks * PAGE_TOKENS)
  }

  get size(): number {
    return this.#blockOf.size
  }

  /** The block of that name that holds tokens[start, …), or 0. The ids are compared: a name alone is never trusted. */
  find(name: string, tokens: Int32Array, start: number): number {
    const block = this.#blockOf.get(name)
    if (block === undefined) return 0
    const at = block * PAGE_TOKENS
    for (let i = 0; i < PAGE_TOKENS; i++) if (this.#ids[at + i] !== tokens[start + i]) return 0
    return block
  }

  /** The first block of a name keeps it: a second one with the same content gains nothing. */
  insert(name: string, block: number, tokens: Int32Array, start: number): void {
    if (this.#blockOf.has(name) || this.#nameOf[block] !== undefined) return
    this.#blockOf.set(name, block)
    this.#nameOf[block] = name
    const at = block * PAGE_TOKENS
    for (let i = 0; i < PAGE_TOKENS; i++) this.#ids[at + i] = tokens[start + i]!
  }

  has(block: number): boolean {
    return this.#nameOf[block] !== undefined
  }

  forget(block: number): void {
    const name = this.#nameOf[block]
    if (name === undefined) return
    this.#blockOf.delete(name)
    this.#nameOf[block] = undefined
  }

  /** The blocks that have a name. */
  blocks(): number[] {
    return [...this.#blockOf.values()]
  }
}
