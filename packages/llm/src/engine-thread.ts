import { type MessagePort, workerData } from 'node:worker_threads'
import { rankFailure, serveEngine } from '@aphrodite/engine'
import { registerOnlyHere } from '@aphrodite/models'
import { AphroditeError } from '@aphrodite/tensor'
import { type EngineHost, type EngineSetup, openEngineHost } from './engine-host.ts'
import type { CommunicatorHandle } from './ranks/communicator.ts'
import { type LeaderData, type LeadingEngine, leadEngine } from './ranks/lead-thread.ts'
import type { DeviceLimits, LLMInfo } from './types.ts'

/** What the thread is started with: what to load, the engine's port, and a port for everything else. */
export interface ThreadData {
  readonly setup: EngineSetup
  readonly engine: MessagePort
  readonly control: MessagePort
  /** Of several ranks this is rank 0's engine. */
  readonly ranks?: LeaderData
}

export type ThreadReport =
  | { readonly type: 'progress'; readonly message: string }
  | { readonly type: 'ready'; readonly info: LLMInfo }
  | { readonly type: 'failed'; readonly code: string | null; readonly message: string }
  | { readonly type: 'limits'; readonly limits: DeviceLimits }
  /** Of several ranks: where this engine listens for those of the others, and what they reduce by. */
  | { readonly type: 'listening'; readonly port: number }
  | { readonly type: 'communicator'; readonly communicator: CommunicatorHandle }
  /** A step has thrown, and there will be none any more. */
  | { readonly type: 'died'; readonly code: string; readonly message: string }

export type ThreadCommand = { readonly type: 'measureLimits' }

const { setup, engine, control, ranks } = workerData as ThreadData
const report = (message: ThreadReport): void => control.postMessage(message)

registerOnlyHere()
const say = (message: string): void => report({ type: 'progress', message })
let host: EngineHost | undefined
let leading: LeadingEngine | undefined
try {
  if (ranks) {
    leading = await leadEngine(
      setup,
      ranks,
      say,
      (port) => report({ type: 'listening', port }),
      (communicator) => report({ type: 'communicator', communicator }),
    )
    host = leading.host
  } else host = await openEngineHost(setup, say)
} catch (error) {
  const code = error instanceof AphroditeError ? error.code : null
  report({
    type: 'failed',
    code,
    message: error instanceof Error ? (code ? error.message : (error.stack ?? error.message)) : String(error),
  })
}
if (host) {
  const { measureLimits, info, core, close } = host
  control.on('message', (command: ThreadCommand) => {
    if (command.type === 'measureLimits')
      void measureLimits().then(
        (limits) => report({ type: 'limits', limits }),
        (error: unknown) => report({ type: 'failed', code: error instanceof AphroditeError ? error.code : null, message: String(error) }),
      )
  })
  report({ type: 'ready', info })
  if (leading) {
    const { leader, died, close } = leading
    await serveEngine(engine, leader, (error) => {
      const { code, message } = rankFailure(0, error)
      died(error)
      report({ type: 'died', code, message })
    })
    close()
  } else {
    await serveEngine(engine, core)
    close()
  }
}
control.close()
