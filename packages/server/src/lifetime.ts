import type { FastifyReply } from 'fastify'
import { clientGone, shuttingDown } from './api-error.ts'

/** Why a request's signal fired. */
export type AbortReason = 'client gone' | 'slow reader' | 'shutdown' | 'failed'

/** One request on its way: the signal that takes it out of the engine, and why. */
export interface RequestScope {
  readonly signal: AbortSignal
  readonly reason: AbortReason | undefined
  abort(reason: AbortReason): void
  /** Runs work that the signal ends; when it did, throws what the client, if it is still there, is told. */
  run<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T>
}

/**
 * Knows the requests that the model works for. A connection that closes before its answer is whole aborts its request;
 * after `drain` no new ones begin, and those still running at the deadline are aborted.
 */
export class Lifetime {
  readonly #running = new Set<RequestScope>()
  #draining = false

  get running(): number {
    return this.#running.size
  }

  get draining(): boolean {
    return this.#draining
  }

  begin(reply: FastifyReply): RequestScope {
    const controller = new AbortController()
    const scope: RequestScope = {
      signal: controller.signal,
      get reason() {
        return controller.signal.reason instanceof Aborted ? controller.signal.reason.why : undefined
      },
      abort: (reason) => controller.abort(new Aborted(reason)),
      run: async (work) => {
        try {
          const result = await work(controller.signal)
          if (scope.reason === undefined) return result
        } catch (error) {
          if (scope.reason === undefined) throw error
        }
        throw scope.reason === 'shutdown' ? shuttingDown() : clientGone()
      },
    }
    // `close` comes once for every answer: after the last byte was handed over, or when the connection is gone before that.
    const close = () => {
      this.#running.delete(scope)
      if (!reply.raw.writableFinished) scope.abort('client gone')
    }
    this.#running.add(scope)
    if (reply.raw.destroyed || reply.raw.socket?.destroyed) close()
    else reply.raw.once('close', close)
    return scope
  }

  drain(): void {
    this.#draining = true
  }

  abortAll(): void {
    for (const scope of this.#running) scope.abort('shutdown')
  }
}

class Aborted extends Error {
  readonly why: AbortReason
  constructor(why: AbortReason) {
    super(`aborted: ${why}`)
    this.name = 'AbortError'
    this.why = why
  }
}
