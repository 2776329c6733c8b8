import type { CacheGroups } from './cache-groups.ts'
import { byOrder, type Sequence } from './sequence.ts'

/**
 * Chooses what the next step computes. There is one budget of tokens a step: sequences that decode take theirs first, prompts
 * are cut into what is left. Everything stands in one order (priority, arrival, answer) and whoever is behind gives way:
 * the first in the order always gets on, so everybody is the first some day.
 */
export class Scheduler {
  /** Both in order. */
  readonly running: Sequence[] = []
  readonly waiting: Sequence[] = []
  preemptions = 0
  readonly #cache: CacheGroups
  readonly #maxRunning: number
  readonly #maxTokens: number
  readonly #onAdmit: (sequence: Sequence, cachedTokens: number) => void
  #budget = 0

  /** onAdmit: called with a sequence that starts (again) and how many of its tokens were in the cache. */
  constructor(
    cache: CacheGroups,
    limits: { readonly maxNumSeqs: number; readonly maxNumBatchedTokens: number },
    onAdmit: (sequence: Sequence, cachedTokens: number) => void = () => {},
  ) {
    this.#cache = cache
    // Each running sequence must be able to get a token every step, or the last ones would starve.
    this.#maxRunning = Math.min(limits.maxNumSeqs, limits.maxNumBatchedTokens)
    this.#maxTokens = limits.maxNumBatchedTokens
    this.#onAdmit = onAdmit
  }

  get hasWork(): boolean {
    return this.running.length > 0 || this.waiting.length > 0
  }

  add(sequence: Sequence): void {
    insert(this.waiting, sequence)
  }

  /** Takes a sequence out, wherever it stands, and its blocks back. */
  remove(sequence: Sequence): void {
    for (const list of [this.running, this.waiting]) {
      const i = list.indexOf(sequence)
      if (i < 0) continue
      list.splice(i, 1)
      break
    }
    sequence.scheduled = 0
    this.#cache.release(sequence)
  }

  preemptAll(): void {
    while (this.running.length > 0) this.#preempt(this.running[this.running.length - 1]!)
  }

  /** Writes into `batch` the sequences of the next step, each with its `scheduled` tokens; those that decode come first. */
  schedule(batch: Sequence[]): void {
    const { running } = this
    this.#budget = this.#maxTokens
    for (const sequence of running) sequence.scheduled = 0
    this.#makeRoom()

    let starved = false
    for (let i = 0; i < running.length; i++) if (running[i]!.pending === 1 && !this.#grow(running[i]!)) starved = true
    for (let i = 0; i < running.length && this.#budget > 0; i++) if (running[i]!.pending > 1 && !this.#grow(running[i]!)) starved = true
    // Newcomers would take the blocks that a running sequence waits for.
    if (!starved) while (this.#budget > 0 && this.#admit()) {}

    let n = 0
    for (let i = 0; i < running.length; i++) if (running[i]!.scheduled > 0 && running[i]!.pending === 1) batch[n++] = running[i]!
    for (let i = 0; i < running.length; i++) if (running[i]!.scheduled > 0 && running[i]!.pending > 1) batch[n++] = running[i]!
    batch.length = n
  }

  /** Gives a running sequence its tokens of this step, preempting those behind it. False if it has to rest or take fewer. */
  #grow(sequence: Sequence): boolean {
    let wanted = Math.min(sequence.pending, this.#budget)
    if (wanted === 0) return true
    let count = wanted
    while (!this.#cache.reserve(sequence, sequence.computed + count)) {
      const last = this.running[this.running.length - 1]!
      if (last !== sequence) {
        this.#preempt(last)
        // It may have been in the step already, and its tokens are free again.
        wanted = count = Math.min(sequence.pending, this.#budget)
        continue
      }
      // Nobody is behind it. It keeps what it has: those before it will take it if they need it.
      count = this.#cache.reservable(sequence, sequence.computed + count) - sequence.computed
      if (count <= 0) return false
    }
    sequence.scheduled = count
    this.#budget -= count
    return count === wanted
  }

  /** Takes in the first that waits, if there is a seat and room for all of it. */
  #admit(): boolean {
    const sequence = this.waiting[0]
    if (!sequence || sequence.complete || this.running.length >= this.#maxRunning) return false
    const cached = this.#cache.attach(sequence)
    // Who runs may want another block soon: a newcomer that takes the last one would only be thrown out again.
    if (!this.#cache.fits(sequence, this.running.length)) {
      this.#cache.release(sequence)
      return false
    }
    const wanted = Math.min(sequence.pending, this.#budget)
    const count = this.#cache.reservable(sequence, sequence.computed + wanted) - sequence.computed
    if (count <= 0 || !this.#cache.reserve(sequence, sequence.computed + count)) {
      this.#cache.release(sequence)
      return false
    }
    this.waiting.shift()
    insert(this.running, sequence)
    sequence.scheduled = count
    this.#budget -= count
    this.#onAdmit(sequence, cached)
    return true
  }

  /** Lets the first that waits take the place of those with a lower priority, if that helps. */
  #makeRoom(): void {
    const head = this.waiting[0]
    if (!head || head.complete) return
    for (;;) {
      const last = this.running[this.running.length - 1]
      if (!last || last.request.priority >= head.request.priority) return
      if (this.running.length < this.#maxRunning && this.#wouldFit(head)) return
      this.#preempt(last)
    }
  }

  #wouldFit(sequence: Sequence): boolean {
    this.#cache.attach(sequence)
    const fits = this.#cache.fits(sequence, this.running.length)
    this.#cache.release(sequence)
    return fits
  }

  /** Its blocks go to the others; it is computed again later, from what the prefix cache still has of it. */
  #preempt(sequence: Sequence): void {
    this.running.pop()
    this.#budget += sequence.scheduled
    sequence.scheduled = 0
    this.#cache.release(sequence)
    insert(this.waiting, sequence)
    this.preemptions++
  }
}

/** Keeps a list in order. Newcomers belong near the end, so it looks from there. */
function insert(list: Sequence[], sequence: Sequence): void {
  let i = list.length
  while (i > 0 && byOrder(list[i - 1]!, sequence) > 0) i--
  list.splice(i, 0, sequence)
}
