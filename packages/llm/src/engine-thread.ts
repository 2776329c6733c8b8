import { type MessagePort, workerData } from 'node:worker_threads'
import { serveEngine } from '@aphrodite/engine'
import { registerOnlyHere } from '@aphrodite/models'
import { AphroditeError } from '@aphrodite/tensor'
import { type EngineHost, type EngineSetup, openEngineHost } from './engine-host.ts'
import type { DeviceLimits, LLMInfo } from './types.ts'

/** What the thread is started with: what to load, the engine's port, and a port for everything else. */
export interface ThreadData {
  readonly setup: EngineSetup
  readonly engine: MessagePort
  readonly control: MessagePort
}

export type ThreadReport =
  | { readonly type: 'progress'; readonly message: string }
  | { readonly type: 'ready'; readonly info: LLMInfo }
  | { readonly type: 'failed'; readonly code: string | null; readonly message: string }
  | { readonly type: 'limits'; readonly limits: DeviceLimits }

export type ThreadCommand = { readonly type: 'measureLimits' }

const { setup, engine, control } = workerData as ThreadData
const report = (message: ThreadReport): void => control.postMessage(message)

registerOnlyHere()
let host: EngineHost | undefined
try {
  host = await openEngineHost(setup, (message) => report({ type: 'progress', message }))
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
  await serveEngine(engine, core)
  close()
}
control.close()
