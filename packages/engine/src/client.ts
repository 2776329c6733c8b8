import type { MessagePort } from 'node:worker_threads'
import { AphroditeError } from '@aphrodite/tensor'
import { engineError } from './errors.ts'
import type { Command, Report } from './frames.ts'
import { EngineLoop } from './loop.ts'
import { TOKEN_WORDS } from './outbox.ts'
import type { EngineClient, EngineFailure, EngineOutput, EngineRequest, EngineStats, MemoryLedger } from './protocol.ts'
import type { SteppedEngine } from './ranks/engine.ts'
import { RequestStream } from './request-stream.ts'

/** An engine's client, and its way of being told that the thread at the other end has died. */
export interface ConnectedEngine extends EngineClient {
  readonly maxModelLen: number
  /** Fails every pending request and every later one with this error. For whoever watches the engine's thread. */
  fail(error: Error): void
}

/** A request that runs. number: what it is called in messages, where its id would be too long. */
interface OpenRequest {
  readonly requestId: string
  readonly number: number
  readonly stream: RequestStream
}

/** The streams of the requests that run, and where their outputs go: the same in process and over a port. */
class Streams {
  readonly #byId = new Map<string, OpenRequest>()
  readonly #byNumber = new Map<number, OpenRequest>()
  #lastNumber = 0
  dead: Error | undefined

  open(request: EngineRequest, abort: () => void): OpenRequest {
    if (this.dead) throw this.dead
    const { id, params, returnLogits } = request
    if (this.#byId.has(id)) throw engineError('BAD_REQUEST', `there is a request "${id}" already. Ids must be unique while a request runs.`)
    const stream = new RequestStream(returnLogits ? 1 : params.n, () => {
      // The id is free again only when the engine has let go of it: its last outputs are still to come.
      abort()
    })
    // Numbers of 31 bits: whoever had one before is long gone.
    this.#lastNumber = (this.#lastNumber + 1) & 0x7fffffff
    const opened = { requestId: id, number: this.#lastNumber, stream }
    this.#byId.set(id, opened)
    this.#byNumber.set(opened.number, opened)
    return opened
  }

  /** TOKEN_WORDS numbers each. */
  deliverTokens(tokens: Int32Array): void {
    for (let i = 0; i < tokens.length; i += TOKEN_WORDS) {
      const opened = this.#byNumber.get(tokens[i]!)
      if (!opened) continue
      const { requestId, stream } = opened
      stream.push({ requestId, index: tokens[i + 1]!, tokenIds: [tokens[i + 2]!], finishReason: null })
    }
  }

  deliver(outputs: readonly EngineOutput[], failures: readonly EngineFailure[]): void {
    for (const output of outputs) {
      const opened = this.#byId.get(output.requestId)
      opened?.stream.push(output)
      if (opened?.stream.ended) this.#forget(opened)
    }
    for (const { requestId, code, message } of failures) {
      const opened = this.#byId.get(requestId)
      opened?.stream.fail(new AphroditeError(code, message))
      if (opened) this.#forget(opened)
    }
  }

  /** Fails all, now and later. The first reason is the one that counts. */
  die(error: Error): void {
    this.dead ??= error
    for (const { stream } of this.#byId.values()) stream.fail(this.dead)
    this.#byId.clear()
    this.#byNumber.clear()
  }

  #forget({ requestId, number }: OpenRequest): void {
    this.#byId.delete(requestId)
    this.#byNumber.delete(number)
  }
}

const closedError = (): AphroditeError => engineError('ENGINE_CLOSED', 'the engine was closed')

/** A client of a core in this very thread: for tests, tools, and where a forward may hold up the event loop. */
export function inProcessEngine(core: SteppedEngine): ConnectedEngine {
  const streams = new Streams()
  const loop = new EngineLoop(
    core,
    (events) => streams.deliver(events.outputs, events.failures),
    (error) => streams.die(deathOf(error instanceof AphroditeError ? error.code : null, reasonOf(error), error)),
  )
  let closing: Promise<void> | undefined
  return {
    ledger: core.ledger,
    maxModelLen: core.maxModelLen,
    submit(request) {
      const { stream } = streams.open(request, () => loop.abort(request.id))
      loop.add(request)
      return stream
    },
    abort: (requestId) => loop.abort(requestId),
    async stats() {
      return core.stats()
    },
    async resetPrefixCache() {
      core.resetPrefixCache()
    },
    close() {
      streams.die(closedError())
      closing ??= loop.stop()
      return closing
    },
    fail: (error) => streams.die(error),
  }
}

/** How long a port may be closed before its requests fail without a reason: whoever watches the thread may have a better one. */
const REASON_MS = 100

/** A client of the core that `serveEngine` runs at the other end of a port. Resolves when it says that it is ready. */
export function connectEngine(port: MessagePort): Promise<ConnectedEngine> {
  return new Promise((resolve, reject) => {
    const client = new PortClient(port, resolve, reject)
    port.on('message', (report: Report) => client.receive(report))
    port.on('close', () => client.lost())
  })
}

class PortClient implements ConnectedEngine {
  ledger: MemoryLedger = { total: 0, weights: 0, workspace: 0, cache: 0, cacheTokens: 0, groups: [] }
  maxModelLen = 0
  readonly #port: MessagePort
  readonly #onReady: (client: ConnectedEngine) => void
  readonly #onDeath: (error: Error) => void
  readonly #streams = new Streams()
  readonly #calls = new Map<number, { resolve: (stats: EngineStats | undefined) => void; reject: (error: Error) => void }>()
  #lastCall = 0
  #closing: Promise<void> | undefined
  #closed: () => void = () => {}

  constructor(port: MessagePort, onReady: (client: ConnectedEngine) => void, onDeath: (error: Error) => void) {
    this.#port = port
    this.#onReady = onReady
    this.#onDeath = onDeath
  }

  receive(report: Report): void {
    if (report.type === 'events') {
      this.#send({ type: 'seen' })
      this.#streams.deliverTokens(report.tokens)
      this.#streams.deliver(report.outputs, report.failures)
    } else if (report.type === 'reply') {
      this.#calls.get(report.call)?.resolve(report.stats)
      this.#calls.delete(report.call)
    } else if (report.type === 'ready') {
      this.ledger = report.ledger
      this.maxModelLen = report.maxModelLen
      this.#onReady(this)
    } else if (report.type === 'dead') this.fail(deathOf(report.code, report.message))
    else this.#closed()
  }

  /** The other end is gone. */
  lost(): void {
    this.#closed()
    if (this.#streams.dead) return
    setTimeout(() => this.fail(engineError('ENGINE_CLOSED', 'the engine is gone: its thread ended or its port was closed')), REASON_MS)
  }

  fail(error: Error): void {
    this.#streams.die(error)
    for (const { reject } of this.#calls.values()) reject(this.#streams.dead!)
    this.#calls.clear()
    this.#onDeath(error)
  }

  submit(request: EngineRequest): RequestStream {
    const { stream, number } = this.#streams.open(request, () => this.abort(request.id))
    this.#send({ type: 'add', request, number })
    return stream
  }

  abort(requestId: string): void {
    this.#send({ type: 'abort', requestId })
  }

  async stats(): Promise<EngineStats> {
    return (await this.#call((call) => ({ type: 'stats', call })))!
  }

  async resetPrefixCache(): Promise<void> {
    await this.#call((call) => ({ type: 'resetPrefixCache', call }))
  }

  close(): Promise<void> {
    this.#closing ??= new Promise<void>((resolve) => {
      const alive = !this.#streams.dead
      this.#closed = () => {
        this.#port.close()
        resolve()
      }
      this.fail(closedError())
      if (alive) this.#send({ type: 'close' })
      else this.#closed()
    })
    return this.#closing
  }

  #call(command: (call: number) => Command): Promise<EngineStats | undefined> {
    if (this.#streams.dead) return Promise.reject(this.#streams.dead)
    const call = ++this.#lastCall
    return new Promise((resolve, reject) => {
      this.#calls.set(call, { resolve, reject })
      this.#send(command(call))
    })
  }

  #send(command: Command): void {
    this.#port.postMessage(command)
  }
}

/** What ranks say of each other is said as it is: it names the rank. */
const deathOf = (code: string | null, reason: string, cause?: unknown): AphroditeError =>
  code === 'RANK_FAILED' || code === 'RANKS_DIVERGED'
    ? new AphroditeError(code, reason, { cause })
    : engineError('ENGINE_CLOSED', `the engine has died: ${reason}`, { cause })

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
