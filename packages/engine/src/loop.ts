import type { AphroditeError } from '@aphrodite/tensor'
import type { EngineEvents } from './engine-core.ts'
import type { EngineFailure, EngineRequest } from './protocol.ts'
import type { SteppedEngine } from './ranks/engine.ts'

/** Code and message of an error, as an event. */
export function failureOf(requestId: string, error: unknown): EngineFailure {
  const { code = 'STEP_FAILED', message = String(error) } = (error ?? {}) as Partial<AphroditeError>
  return { requestId, code, message }
}

/**
 * Runs a core: step after step while there is work, with a turn of the event loop in between, in which new requests and
 * aborts come in; not at all otherwise.
 */
export class EngineLoop {
  readonly core: SteppedEngine
  readonly #onEvents: (events: EngineEvents) => void
  readonly #onDeath: (error: unknown) => void
  #turning: Promise<void> | undefined
  #stopped = false

  constructor(core: SteppedEngine, onEvents: (events: EngineEvents) => void, onDeath: (error: unknown) => void) {
    this.core = core
    this.#onEvents = onEvents
    this.#onDeath = onDeath
  }

  /** A request that is refused fails by an event, like any other. */
  add(request: EngineRequest): void {
    try {
      this.core.add(request)
    } catch (error) {
      this.#onEvents({ outputs: [], failures: [failureOf(String(request?.id), error)] })
    }
    this.#wake()
  }

  abort(requestId: string): void {
    this.core.abort(requestId)
    this.#wake()
  }

  /** Ends after the running step, and closes the core. */
  async stop(): Promise<void> {
    this.#stopped = true
    await this.#turning
    this.core.close()
  }

  #wake(): void {
    if (!this.#turning && !this.#stopped) this.#turning = this.#run()
  }

  async #run(): Promise<void> {
    try {
      for (;;) {
        await new Promise<void>((resolve) => setImmediate(resolve))
        if (this.#stopped || !this.core.hasWork) break
        const events = await this.core.step()
        if (events.outputs.length > 0 || events.failures.length > 0) this.#onEvents(events)
      }
    } catch (error) {
      this.#stopped = true
      this.#onDeath(error)
    } finally {
      this.#turning = undefined
    }
  }
}
