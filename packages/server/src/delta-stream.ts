import type { CompletionDelta, Prompt, RequestOptions, SamplingParams, TokenLogprobs } from '@aphrodite/llm'
import type { FastifyReply } from 'fastify'
import { shuttingDown, toApiError } from './api-error.ts'
import type { ServerContext } from './context.ts'
import type { RequestScope } from './lifetime.ts'
import { EventStream } from './sse.ts'

/** One prompt of a request. Its n answers are the choices from `offset` on. */
export interface Job {
  readonly prompt: Prompt
  readonly promptTokenIds: readonly number[]
  readonly offset: number
}

/** What came of one choice since it was last written; several deltas in one when the reader or this thread was behind. */
export interface MergedDelta {
  text: string
  tokenIds: number[]
  logprobs: TokenLogprobs[] | null
  finishReason: CompletionDelta['finishReason']
  stopReason: string | number | null
}

/** Writes deltas down in an endpoint's form: whole events, or nothing when there is nothing to say. */
export interface ChunkWriter {
  /** With the first delta of a prompt. */
  begin?(job: Job, delta: CompletionDelta): void
  chunk(choice: number, delta: MergedDelta, usage: StreamUsage): string
  last(usage: StreamUsage): string
}

export interface StreamUsage {
  promptTokens: number
  completionTokens: number
  cachedTokens: number
}

/** About so many bytes are merged before they are written, reader or no reader. */
const MOST_PENDING = 16 * 1024

/**
 * Streams the answers to every job over one connection. Takes from the model only what the reader takes: while its buffer
 * is full no delta is asked for, and what comes in one turn of the event loop leaves as one write.
 *
 * Throws, with nothing sent, what goes wrong before the first token.
 */
export async function streamAnswers(
  context: ServerContext,
  reply: FastifyReply,
  scope: RequestScope,
  jobs: readonly Job[],
  params: Partial<SamplingParams>,
  options: RequestOptions,
  writer: ChunkWriter,
): Promise<void> {
  const pending = new Map<number, MergedDelta>()
  let pendingBytes = 0
  const usage: StreamUsage = { promptTokens: 0, completionTokens: 0, cachedTokens: 0 }
  for (const job of jobs) usage.promptTokens += job.promptTokenIds.length

  const take = (): string => {
    const deltas = [...pending]
    pending.clear()
    pendingBytes = 0
    let text = ''
    for (const [choice, delta] of deltas) text += writer.chunk(choice, delta, usage)
    return text
  }
  let broken: unknown
  const events = new EventStream(reply, scope, context.options, take, (error) => {
    broken = error
    scope.abort('failed')
  })

  const pump = async (job: Job): Promise<void> => {
    let first = true
    for await (const delta of context.llm.stream(job.prompt, params, { ...options, signal: scope.signal })) {
      if (scope.signal.aborted) return
      if (first) {
        first = false
        usage.cachedTokens += delta.cachedTokens ?? 0
        writer.begin?.(job, delta)
      }
      usage.completionTokens += delta.tokenIds.length
      pendingBytes += merge(pending, job.offset + delta.index, delta)
      if (pendingBytes >= MOST_PENDING) events.flush()
      else events.schedule()
      const room = events.room()
      if (room) await room
      if (scope.signal.aborted) return
    }
  }

  try {
    await Promise.all(jobs.map(pump))
    if (scope.signal.aborted) throw scope.signal.reason
    events.end(writer.last(usage))
  } catch (error) {
    if (scope.reason === undefined) scope.abort('failed')
    if (scope.reason === 'client gone' || scope.reason === 'slow reader') {
      events.cancel()
      reply.request.log.info({ reason: scope.reason }, 'stream ended early')
      if (!reply.sent) reply.hijack()
      return
    }
    const cause = broken ?? error
    const shown = scope.reason === 'shutdown' ? shuttingDown() : toApiError(cause)
    if (!events.started) {
      events.cancel()
      throw shown
    }
    if (shown.status >= 500) reply.request.log.error({ err: cause }, 'stream failed')
    events.fail(shown.body)
  }
}

/** Adds a delta to what waits for its choice; returns about how many bytes that is. */
function merge(pending: Map<number, MergedDelta>, choice: number, delta: CompletionDelta): number {
  const into = pending.get(choice)
  if (into) {
    into.text += delta.text
    for (const id of delta.tokenIds) into.tokenIds.push(id)
    if (delta.logprobs) into.logprobs = [...(into.logprobs ?? []), ...delta.logprobs]
    into.finishReason = delta.finishReason ?? into.finishReason
    into.stopReason = delta.stopReason ?? into.stopReason
  } else {
    pending.set(choice, {
      text: delta.text,
      tokenIds: [...delta.tokenIds],
      logprobs: delta.logprobs ? [...delta.logprobs] : null,
      finishReason: delta.finishReason,
      stopReason: delta.stopReason,
    })
  }
  let bytes = delta.text.length + delta.tokenIds.length * 8
  for (const token of delta.logprobs ?? []) bytes += 100 * (1 + token.top.length)
  return bytes
}
