import { engineError, grouped } from './errors.ts'
import type { EngineRequest } from './protocol.ts'
import { resolveSamplingParams } from './resolve-params.ts'
import { samplingPlan } from './sampling-plan.ts'
import { Request } from './sequence.ts'

/** What a request is checked against, and what it is completed from. */
export interface RequestLimits {
  readonly vocabSize: number
  readonly maxModelLen: number
  readonly maxAnswers: number
  readonly eosTokenIds: readonly number[]
  readonly seedOf: (arrival: number) => number
  readonly rootName: (cacheSalt: string, promptLength: number) => string
}

/** The most that returnLogits may take: larger arrays cross no thread in one piece. */
const MAX_RETURNED_LOGITS = 2 ** 31

/** Checks a request and brings it into the engine's form. It comes from another thread: nothing in it is believed. */
export function readRequest(request: EngineRequest, arrival: number, limits: RequestLimits): Request {
  if (typeof request !== 'object' || request === null || typeof request.id !== 'string' || request.id === '')
    throw engineError('BAD_REQUEST', 'a request should be an object with an `id`')
  const { id, promptTokenIds, cacheSalt = '', priority = 0, returnLogits = false } = request
  const { vocabSize, maxModelLen } = limits
  if (!Array.isArray(promptTokenIds) && !ArrayBuffer.isView(promptTokenIds))
    throw engineError('BAD_REQUEST', `request "${id}": promptTokenIds should be a list of token ids`)
  const length = promptTokenIds.length
  if (length === 0) throw engineError('BAD_REQUEST', `request "${id}": the prompt is empty; it needs at least one token`)
  if (typeof cacheSalt !== 'string') throw engineError('BAD_REQUEST', `request "${id}": cacheSalt should be a string`)
  if (!Number.isFinite(priority)) throw engineError('BAD_REQUEST', `request "${id}": priority should be a number, is ${priority}`)
  const params = resolveSamplingParams(request.params, limits)
  const room = maxModelLen - (returnLogits || params.maxTokens === 0 ? 0 : 1)
  if (length > room)
    throw engineError(
      'SEQUENCE_TOO_LONG',
      `request "${id}": the prompt has ${grouped(length)} tokens, at most ${grouped(room)} fit: the model's context is ${grouped(maxModelLen)} here, answer included. Shorten the prompt or raise --max-model-len.`,
    )
  const prompt = new Int32Array(length)
  for (let i = 0; i < length; i++) {
    const token = promptTokenIds[i]
    if (!Number.isSafeInteger(token) || token! < 0 || token! >= vocabSize)
      throw engineError('BAD_REQUEST', `request "${id}": prompt token ${i} is ${token}; ids go from 0 to ${vocabSize - 1}`)
    prompt[i] = token!
  }
  if (returnLogits && length * vocabSize * 4 > MAX_RETURNED_LOGITS)
    throw engineError(
      'BAD_REQUEST',
      `request "${id}": logits of ${grouped(length)} tokens take ${grouped(length * vocabSize * 4)} bytes, at most ${grouped(MAX_RETURNED_LOGITS)} can be returned. Ask for at most ${grouped(Math.floor(MAX_RETURNED_LOGITS / vocabSize / 4))} tokens at a time.`,
    )
  return new Request({
    id,
    prompt,
    plan: samplingPlan(params, limits.eosTokenIds, vocabSize),
    priority,
    arrival,
    seed: params.seed ?? limits.seedOf(arrival),
    rootName: limits.rootName(cacheSalt, length),
    logits: returnLogits ? new Float32Array(length * vocabSize) : undefined,
    mostTokens:
      returnLogits || params.maxTokens === 0
        ? Number.POSITIVE_INFINITY
        : Math.min(length + (params.maxTokens ?? Number.POSITIVE_INFINITY), maxModelLen),
  })
}
