import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import { type ConnectedEngine, connectEngine, type EngineClient, inProcessEngine, rankFailure } from '@aphrodite/engine'
import { AphroditeError } from '@aphrodite/tensor'
import { type EngineSetup, openEngineHost } from './engine-host.ts'
import type { ThreadCommand, ThreadData, ThreadReport } from './engine-thread.ts'
import { llmError } from './errors.ts'
import { abortCommunicator, type CommunicatorHandle } from './ranks/communicator.ts'
import { Ranks } from './ranks/lead.ts'
import type { LeaderData } from './ranks/lead-thread.ts'
import type { RankPlace } from './ranks/place.ts'
import type { DeviceLimits, LLMInfo } from './types.ts'

/** How long rank 0 may take to say itself why it cannot start, when another rank has. */
const OWN_REASON_MS = 300

/** An engine that runs, wherever it does. */
export interface StartedEngine {
  readonly client: EngineClient
  readonly info: LLMInfo
  measureLimits(): Promise<DeviceLimits>
  /** Ends the engine and waits until its memory is free. */
  close(): Promise<void>
}

/** In a thread of its own, so that no request waits behind a forward. */
export async function startEngineThread(setup: EngineSetup, say: (message: string) => void): Promise<StartedEngine> {
  const thread = new EngineThread(setup, say)
  try {
    const { info } = await thread.replies.next('ready')
    return thread.started(await connectEngine(thread.engine), info)
  } catch (error) {
    await thread.terminate()
    throw error
  }
}

/**
 * Rank 0's engine in a thread of its own, and the others in processes: started here, or where `launched` says so by a launcher.
 * When one of them fails, all requests fail with an error that names it, later ones too.
 */
export async function startEngineRanks(
  setup: EngineSetup,
  launched: RankPlace | undefined,
  say: (message: string) => void,
): Promise<StartedEngine> {
  const { tensorParallelSize: size, rankTimeout } = setup.options
  const ranks = await Ranks.open(setup, { size, launched, rankTimeout }, say)
  const thread = new EngineThread(setup, say, { place: ranks.place, rankTimeout })
  let client: ConnectedEngine | undefined
  const failed = (error: AphroditeError): void => {
    thread.abort(error.message)
    client?.fail(error)
    // At the start what is wrong on another rank is often wrong on this one too, and better said by it.
    if (client) thread.replies.fail(error)
    else setTimeout(() => thread.replies.fail(error), OWN_REASON_MS)
  }
  thread.replies.onDeath = (error) => ranks.fail(error)
  try {
    const { port } = await thread.replies.next('listening')
    await ranks.connect(port, failed)
    const { info } = await thread.replies.next('ready')
    client = await connectEngine(thread.engine)
    const engine = thread.started(client, info)
    return {
      ...engine,
      async close() {
        ranks.expectEnd()
        await engine.close()
        await ranks.close()
      },
    }
  } catch (error) {
    ranks.fail(rankFailure(0, error))
    thread.abort('rank 0 could not start')
    await Promise.all([thread.terminate(), ranks.close()])
    throw error
  }
}

/** The thread that an engine is to run in. */
class EngineThread {
  /** For the engine's client. */
  readonly engine: MessagePort
  readonly replies: Replies
  readonly #worker: Worker
  readonly #control: MessagePort
  readonly #exited: Promise<void>

  constructor(setup: EngineSetup, say: (message: string) => void, ranks?: LeaderData) {
    const engine = new MessageChannel()
    const control = new MessageChannel()
    this.engine = engine.port1
    this.#control = control.port1
    const data: ThreadData = { setup, engine: engine.port2, control: control.port2, ...(ranks && { ranks }) }
    const worker = new Worker(new URL('./engine-thread.js', import.meta.url), {
      workerData: data,
      transferList: [engine.port2, control.port2],
      name: 'aphrodite-engine',
    })
    this.#worker = worker
    this.#exited = new Promise<void>((resolve) => worker.once('exit', () => resolve()))
    this.replies = new Replies(control.port1, say)
    worker.once('error', (error) =>
      this.replies.fail(
        llmError('ENGINE_DEAD', `the engine's thread ended: ${error instanceof Error ? error.message : String(error)}`, { cause: error }),
      ),
    )
    void this.#exited.then(() => this.replies.fail(llmError('ENGINE_DEAD', "the engine's thread ended")))
  }

  started(client: EngineClient, info: LLMInfo): StartedEngine {
    return {
      client,
      info,
      measureLimits: async () => {
        this.#control.postMessage({ type: 'measureLimits' } satisfies ThreadCommand)
        return (await this.replies.next('limits')).limits
      },
      close: async () => {
        await client.close()
        await this.#exited
      },
    }
  }

  /** Whatever it waits for of other ranks does not come any more. */
  abort(reason: string): void {
    if (this.replies.communicator) abortCommunicator(this.replies.communicator, reason)
  }

  async terminate(): Promise<void> {
    await this.#worker.terminate()
  }
}

/** In this thread: for models that were registered as classes here, which no other thread can have. Requests wait behind a forward. */
export async function startEngineHere(setup: EngineSetup, say: (message: string) => void): Promise<StartedEngine> {
  const host = await openEngineHost(setup, say)
  const client = inProcessEngine(host.core)
  return {
    client,
    info: host.info,
    measureLimits: () => host.measureLimits(),
    async close() {
      await client.close()
      host.close()
    },
  }
}

type Report<T extends ThreadReport['type']> = Extract<ThreadReport, { type: T }>

/** What the thread says beside the engine's own protocol. */
class Replies {
  #waiting: { type: ThreadReport['type']; resolve: (report: ThreadReport) => void; reject: (error: Error) => void }[] = []
  #dead: Error | undefined
  /** Of the engine's rank, as soon as there is one. */
  communicator: CommunicatorHandle | undefined
  /** A step has thrown, on a rank that does not know why the others have not. */
  onDeath: (error: AphroditeError) => void = () => {}

  constructor(port: MessagePort, say: (message: string) => void) {
    port.on('message', (report: ThreadReport) => {
      if (report.type === 'progress') say(report.message)
      else if (report.type === 'communicator') this.communicator = report.communicator
      else if (report.type === 'died') this.onDeath(new AphroditeError(report.code, report.message))
      else if (report.type === 'failed')
        this.fail(report.code ? new AphroditeError(report.code, report.message) : new Error(report.message))
      else {
        const i = this.#waiting.findIndex((w) => w.type === report.type)
        if (i >= 0) this.#waiting.splice(i, 1)[0]!.resolve(report)
      }
    })
    port.unref()
  }

  next<T extends ThreadReport['type']>(type: T): Promise<Report<T>> {
    if (this.#dead) return Promise.reject(this.#dead)
    return new Promise((resolve, reject) => this.#waiting.push({ type, resolve: resolve as (report: ThreadReport) => void, reject }))
  }

  fail(error: Error): void {
    this.#dead ??= error
    for (const { reject } of this.#waiting.splice(0)) reject(this.#dead)
  }
}
