import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import { connectEngine, type EngineClient, inProcessEngine } from '@aphrodite/engine'
import { AphroditeError } from '@aphrodite/tensor'
import { type EngineSetup, openEngineHost } from './engine-host.ts'
import type { ThreadCommand, ThreadData, ThreadReport } from './engine-thread.ts'
import { llmError } from './errors.ts'
import type { DeviceLimits, LLMInfo } from './types.ts'

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
  const engine = new MessageChannel()
  const control = new MessageChannel()
  const data: ThreadData = { setup, engine: engine.port2, control: control.port2 }
  const worker = new Worker(new URL('./engine-thread.js', import.meta.url), {
    workerData: data,
    transferList: [engine.port2, control.port2],
    name: 'aphrodite-engine',
  })
  const exited = new Promise<void>((resolve) => worker.once('exit', () => resolve()))
  const replies = new Replies(control.port1, say)
  worker.once('error', (error) =>
    replies.fail(
      llmError('ENGINE_DEAD', `the engine's thread ended: ${error instanceof Error ? error.message : String(error)}`, { cause: error }),
    ),
  )
  void exited.then(() => replies.fail(llmError('ENGINE_DEAD', "the engine's thread ended")))
  try {
    const { info } = await replies.next('ready')
    const client = await connectEngine(engine.port1)
    return {
      client,
      info,
      async measureLimits() {
        control.port1.postMessage({ type: 'measureLimits' } satisfies ThreadCommand)
        return (await replies.next('limits')).limits
      },
      async close() {
        await client.close()
        await exited
      },
    }
  } catch (error) {
    await worker.terminate()
    throw error
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

  constructor(port: MessagePort, say: (message: string) => void) {
    port.on('message', (report: ThreadReport) => {
      if (report.type === 'progress') say(report.message)
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
