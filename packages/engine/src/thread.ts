import type { MessagePort } from 'node:worker_threads'
import { AphroditeError } from '@aphrodite/tensor'
import type { Command, Report } from './frames.ts'
import { EngineLoop } from './loop.ts'
import { Outbox } from './outbox.ts'
import type { SteppedEngine } from './ranks/engine.ts'

/** Messages with events that may be on their way: the next is made while the last one is read. */
const UNSEEN_MESSAGES = 2

/**
 * Runs a core behind a port, for `connectEngine` at its other end. Resolves when the front has closed the engine or is gone;
 * the core is closed then.
 *
 * The outputs of a step are one message. A front that does not read does not stop the engine: what it has not seen is merged
 * to one output an answer, so that nothing but token ids piles up. onDeath: a step threw, and there will be none any more.
 */
export function serveEngine(port: MessagePort, core: SteppedEngine, onDeath: (error: unknown) => void = () => {}): Promise<void> {
  return new Promise<void>((resolve) => {
    const outbox = new Outbox()
    let unseen = 0
    const report = (message: Report, transfer: readonly ArrayBuffer[] = []): void => port.postMessage(message, transfer)
    const flush = (): void => {
      if (unseen >= UNSEEN_MESSAGES || outbox.isEmpty) return
      unseen++
      const { tokens, outputs, failures } = outbox.take()
      const buffers = outputs.flatMap((output) => (output.logits ? [output.logits.buffer as ArrayBuffer] : []))
      report({ type: 'events', tokens, outputs, failures }, buffers)
    }
    const loop = new EngineLoop(
      core,
      (events) => {
        for (const output of events.outputs) outbox.add(output)
        for (const failure of events.failures) outbox.fail(failure)
        flush()
      },
      (error) => {
        const code = error instanceof AphroditeError ? error.code : null
        report({ type: 'dead', code, message: error instanceof Error ? error.message : String(error) })
        onDeath(error)
      },
    )
    let closing = false
    const close = async (): Promise<void> => {
      if (closing) return
      closing = true
      await loop.stop()
      report({ type: 'closed' })
      port.close()
      resolve()
    }
    port.on('message', (command: Command) => {
      if (command.type === 'add') {
        outbox.open(command.request, command.number)
        loop.add(command.request)
      } else if (command.type === 'abort') loop.abort(command.requestId)
      else if (command.type === 'seen') {
        unseen--
        flush()
      } else if (command.type === 'stats') report({ type: 'reply', call: command.call, stats: core.stats() })
      else if (command.type === 'resetPrefixCache') {
        core.resetPrefixCache()
        report({ type: 'reply', call: command.call })
      } else if (command.type === 'close') void close()
    })
    port.on('close', () => void close())
    report({ type: 'ready', ledger: core.ledger, maxModelLen: core.maxModelLen })
  })
}
