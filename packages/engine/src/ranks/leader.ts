import type { EngineCore, EngineEvents } from '../engine-core.ts'
import { engineError } from '../errors.ts'
import { failureOf } from '../loop.ts'
import type { EngineFailure, EngineRequest, EngineStats, MemoryLedger } from '../protocol.ts'
import type { RankCommand, RankFrame } from './commands.ts'
import type { SteppedEngine } from './engine.ts'
import { rankFailure } from './failure.ts'

/**
 * Rank 0's engine. What it is asked to do is put off until steps are scheduled, told to the other ranks then, and done: so
 * every rank does the same things in the same order, between the same steps.
 */
export class RankLeader implements SteppedEngine {
  readonly #core: EngineCore
  readonly #send: (frame: RankFrame) => void
  #commands: RankCommand[] = []
  #failures: EngineFailure[] = []
  #closed = false

  /** core: a mirrored one. send: to every other rank, in order; it is called in the middle of steps and does not wait. */
  constructor(core: EngineCore, send: (frame: RankFrame) => void) {
    this.#core = core
    this.#send = send
  }

  get ledger(): MemoryLedger {
    return this.#core.ledger
  }
  get maxModelLen(): number {
    return this.#core.maxModelLen
  }
  get hasWork(): boolean {
    return this.#core.hasWork || this.#commands.length > 0
  }

  /** A request that is refused fails by an event of the next step. */
  add(request: EngineRequest): void {
    if (this.#closed) throw engineError('ENGINE_CLOSED', 'the engine is closed')
    this.#commands.push({ type: 'add', request })
  }

  abort(requestId: string): void {
    this.#commands.push({ type: 'abort', requestId })
  }

  /** With the next step. */
  resetPrefixCache(): void {
    this.#commands.push({ type: 'resetPrefixCache' })
  }

  stats(): EngineStats {
    return this.#core.stats()
  }

  /** Throws RANK_FAILED when the step fails, on whichever rank: that is the end of all. */
  async step(): Promise<EngineEvents> {
    // An idle engine schedules only when it has been given something, and the others wait for just that.
    if (!this.#core.hasWork) this.#intake()
    try {
      const events = this.#core.hasWork ? await this.#core.step(() => this.#intake()) : { outputs: [], failures: [] }
      events.failures.push(...this.#failures.splice(0))
      return events
    } catch (error) {
      throw rankFailure(0, error)
    }
  }

  /** Tells the other ranks to end, and gives its own memory back. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#send({ commands: [{ type: 'close' }], digest: this.#core.digest })
    this.#core.close()
  }

  #intake(): void {
    const digest = this.#core.digest
    const commands = this.#commands.splice(0).filter((command) => this.#apply(command))
    this.#send({ commands, digest })
  }

  /** Whether the others are to do it too. */
  #apply(command: RankCommand): boolean {
    try {
      apply(this.#core, command)
      return true
    } catch (error) {
      if (command.type === 'add') this.#failures.push(failureOf(String(command.request?.id), error))
      return false
    }
  }
}

/** Throws what `EngineCore.add` throws. */
export function apply(core: EngineCore, command: RankCommand): void {
  if (command.type === 'add') core.add(command.request)
  else if (command.type === 'abort') core.abort(command.requestId)
  else if (command.type === 'resetPrefixCache') core.resetPrefixCache()
}
