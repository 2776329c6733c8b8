import { setMaxListeners } from 'node:events'
import type { Socket } from 'node:net'
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
  readonly #sockets = new WeakMap<Socket, Set<() => void>>()
  #draining = false

  get draining(): boolean {
    return this.#draining
  }

  begin(reply: FastifyReply): RequestScope {
    const controller = new AbortController()
    // Every prompt of a request listens.
    setMaxListeners(0, controller.signal)
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
    const done = () => {
      this.#running.delete(scope)
      forget()
      if (!reply.raw.writableFinished) scope.abort('client gone')
    }
    // An answer closes when its last byte is handed over, or when the connection is gone before that. One that waits behind
    // others of its connection (HTTP pipelining) is not told of its end: that is what the connection itself is watched for.
    const forget = this.#watch(reply.request.raw.socket, done)
    this.#running.add(scope)
    if (reply.raw.destroyed || reply.request.raw.socket.destroyed) done()
    else reply.raw.once('close', done)
    return scope
  }

  /** Calls back when a connection closes, with one listener however many requests it has; returns how to stop that. */
  #watch(socket: Socket, onClose: () => void): () => void {
    let callbacks = this.#sockets.get(socket)
    if (!callbacks) {
      const all = new Set<() => void>()
      socket.once('close', () => {
        for (const callback of all) callback()
      })
      this.#sockets.set(socket, all)
      callbacks = all
    }
    callbacks.add(onClose)
    return () => callbacks.delete(onClose)
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
