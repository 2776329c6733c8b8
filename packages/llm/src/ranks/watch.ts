import { AphroditeError, tensorError } from '@aphrodite/tensor'
import type { Connection } from './connection.ts'

/** How often rank 0 asks the others whether they live. */
const ASK_MS = 500
/** A rank whose connection has ended may be said more of by whoever watches its process. */
const REASON_MS = 250

/**
 * Rank 0's control connections: whether the other ranks live, and what they, or rank 0, have to say when one cannot go on. It is
 * for a thread that no step blocks. The first failure is the one that counts, and everybody is told.
 */
export class RankWatch {
  readonly #connections: readonly Connection[]
  readonly #silence: number
  readonly #onFailure: (error: AphroditeError) => void
  readonly #heard: number[]
  readonly #timer: NodeJS.Timeout
  #asked = performance.now()
  #failed = false
  #ending = false

  /** connections: of ranks 1, 2, … silenceMs: how long one may not answer. onFailure: once. */
  constructor(connections: readonly Connection[], silenceMs: number, onFailure: (error: AphroditeError) => void) {
    this.#connections = connections
    this.#silence = silenceMs
    this.#onFailure = onFailure
    this.#heard = connections.map(() => performance.now())
    for (const [i, connection] of connections.entries()) {
      const rank = i + 1
      connection.listen(
        (message) => {
          this.#heard[i] = performance.now()
          if (message.type === 'failed') this.fail(new AphroditeError(message.code, message.reason))
        },
        () => setTimeout(() => this.fail(gone(rank, 'its connection ended')), REASON_MS).unref(),
      )
    }
    this.#timer = setInterval(() => this.#ask(), ASK_MS)
    this.#timer.unref()
  }

  /** Where the engine's thread listens. */
  tellEngine(port: number): void {
    for (const connection of this.#connections) connection.send({ type: 'engine', port })
  }

  /** Tells every rank, and whoever watches. Only the first time. */
  fail(error: AphroditeError): void {
    if (this.#failed || this.#ending) return
    this.#failed = true
    clearInterval(this.#timer)
    for (const connection of this.#connections)
      connection.send({ type: 'failed', code: error.code, reason: error.message.slice(0, 10_000) })
    this.#onFailure(error)
  }

  /** From now on ranks may go. */
  expectEnd(): void {
    this.#ending = true
    clearInterval(this.#timer)
  }

  close(): void {
    this.expectEnd()
    for (const connection of this.#connections) {
      connection.send({ type: 'end' })
      connection.close()
    }
  }

  #ask(): void {
    const now = performance.now()
    // While this thread was busy, or the whole group stopped, answers could not be heard.
    const deaf = now - this.#asked - ASK_MS
    this.#asked = now
    for (const [i, connection] of this.#connections.entries()) {
      if (deaf > ASK_MS) this.#heard[i]! += deaf
      if (now - this.#heard[i]! > this.#silence)
        this.fail(
          gone(i + 1, `it has not answered for ${this.#silence / 1000} s: its process is stopped, or its machine cannot be reached`),
        )
      connection.send({ type: 'ping' })
    }
  }
}

export const gone = (rank: number, why: string): AphroditeError => tensorError('RANK_FAILED', `rank ${rank} is gone: ${why}`)
