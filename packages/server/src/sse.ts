import type { FastifyReply } from 'fastify'
import type { ErrorBody } from './api-error.ts'
import type { RequestScope } from './lifetime.ts'

export interface EventStreamOptions {
  /** Milliseconds that the reader may leave the buffer full. */
  readonly slowReaderTimeout: number
  /** Milliseconds of silence before a comment line is sent. */
  readonly keepAliveInterval: number
}

/**
 * A stream of server-sent events. The head goes out with the first event or, when the model takes longer than the
 * keep-alive interval to begin, with the first comment: until then a failure can still be an ordinary answer with a status.
 *
 * What is written waits for the end of the event-loop turn, so that the tokens of several answers leave in one write.
 */
export class EventStream {
  readonly #reply: FastifyReply
  readonly #scope: RequestScope
  readonly #options: EventStreamOptions
  readonly #take: () => string
  readonly #onError: (error: unknown) => void
  readonly #keepAlive: NodeJS.Timeout
  #scheduled: NodeJS.Immediate | undefined
  #room: Promise<void> | undefined
  #started = false
  #ended = false

  /**
   * `take` gives the text of everything that came since it was last asked: whole events. `onError` is told what it threw
   * when nobody waited for it; without that a failure in here would end the process.
   */
  constructor(
    reply: FastifyReply,
    scope: RequestScope,
    options: EventStreamOptions,
    take: () => string,
    onError: (error: unknown) => void,
  ) {
    this.#reply = reply
    this.#scope = scope
    this.#options = options
    this.#take = take
    this.#onError = onError
    this.#keepAlive = setInterval(() => this.#comment(), options.keepAliveInterval)
    reply.raw.once('close', () => this.#release())
  }

  get started(): boolean {
    return this.#started
  }

  /** Something is there to be taken. */
  schedule(): void {
    this.#scheduled ??= setImmediate(() => {
      this.#scheduled = undefined
      try {
        this.flush()
      } catch (error) {
        this.#onError(error)
      }
    })
  }

  flush(): void {
    if (this.#ended) return
    const text = this.#take()
    if (text !== '') this.#write(text)
  }

  /** Undefined while the reader keeps up; else a promise of when it does again, or is gone. */
  room(): Promise<void> | undefined {
    if (!this.#full()) return undefined
    this.#room ??= this.#drained().finally(() => {
      this.#room = undefined
    })
    return this.#room
  }

  /** Writes what is left, `last`, and the end. */
  end(last: string): void {
    if (this.#ended) return
    const text = this.#take()
    this.#write(`${text}${last}data: [DONE]\n\n`)
    this.#close()
  }

  /** A failure in mid-stream: what came before it, the error as an event, and the end. */
  fail(body: ErrorBody): void {
    this.end(`data: ${JSON.stringify(body)}\n\n`)
  }

  /** Gives up the stream before its head is out; the caller answers in another way. */
  cancel(): void {
    this.#release()
  }

  #write(text: string): void {
    this.#start()
    if (!this.#reply.raw.destroyed) this.#reply.raw.write(text)
    this.#keepAlive.refresh()
  }

  #comment(): void {
    // A full buffer says that the reader is slow and not that the line is idle.
    if (!this.#full()) this.#write(': keep-alive\n\n')
  }

  #start(): void {
    if (this.#started) return
    this.#started = true
    const { raw } = this.#reply
    this.#reply.hijack()
    if (raw.destroyed || raw.headersSent) return
    raw.writeHead(200, {
      ...(this.#reply.getHeaders() as Record<string, string>),
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
    })
  }

  #full(): boolean {
    const { raw } = this.#reply
    return !raw.destroyed && raw.writableNeedDrain
  }

  #drained(): Promise<void> {
    const { raw } = this.#reply
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        raw.off('drain', done)
        raw.off('close', done)
        this.#scope.signal.removeEventListener('abort', done)
        resolve()
      }
      const timer = setTimeout(() => {
        this.#scope.abort('slow reader')
        raw.destroy()
        done()
      }, this.#options.slowReaderTimeout)
      raw.on('drain', done)
      raw.on('close', done)
      this.#scope.signal.addEventListener('abort', done)
    })
  }

  #close(): void {
    this.#release()
    const { raw } = this.#reply
    if (raw.destroyed) return
    raw.end()
    // The last bytes wait for the reader too, and no longer than others did.
    if (raw.writableFinished) return
    const timer = setTimeout(() => raw.destroy(), this.#options.slowReaderTimeout)
    raw.once('close', () => clearTimeout(timer))
  }

  #release(): void {
    this.#ended = true
    clearInterval(this.#keepAlive)
    if (this.#scheduled) clearImmediate(this.#scheduled)
  }
}
