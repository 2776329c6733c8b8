import { didYouMean } from '@aphrodite/tensor'
import { engineError } from './errors.ts'
import { DEFAULT_SAMPLING_PARAMS, type SamplingParams } from './params.ts'

/** What a request's parameters are checked against. */
export interface SamplingLimits {
  /** Ids of logitBias and stopTokenIds are below it; unset: not checked. */
  readonly vocabSize?: number
  /** The greatest n. */
  readonly maxAnswers?: number
}

const MAX_STOP_STRINGS = 256
const MAX_LOGPROBS = 20
const MAX_COUNT = 2 ** 31 - 1

/**
 * Fills in defaults and checks every range. Throws BAD_SAMPLING_PARAMS with the field's name, what it may be and what it is.
 * The result is frozen, and plain data: it crosses a thread.
 */
export function resolveSamplingParams(partial: Partial<SamplingParams> = {}, limits: SamplingLimits = {}): SamplingParams {
  if (typeof partial !== 'object' || partial === null || Array.isArray(partial))
    throw engineError('BAD_SAMPLING_PARAMS', `sampling parameters should be an object, are ${shown(partial)}`)
  for (const key of Object.keys(partial)) {
    if (!Object.hasOwn(DEFAULT_SAMPLING_PARAMS, key))
      throw engineError(
        'BAD_SAMPLING_PARAMS',
        `there is no sampling parameter "${key.slice(0, 100)}".${didYouMean(key, Object.keys(DEFAULT_SAMPLING_PARAMS))}`,
      )
  }
  const { vocabSize = MAX_COUNT, maxAnswers = 64 } = limits
  const read = <K extends keyof SamplingParams>(key: K, check: (value: unknown) => string | undefined): SamplingParams[K] => {
    const value = partial[key]
    if (value === undefined) return DEFAULT_SAMPLING_PARAMS[key]
    const problem = check(value)
    if (problem !== undefined) throw engineError('BAD_SAMPLING_PARAMS', `${key} ${problem}, is ${shown(value)}`)
    return value as SamplingParams[K]
  }
  const params: SamplingParams = {
    temperature: read('temperature', between(0, 100)),
    topK: read('topK', whole(0, MAX_COUNT)),
    topP: read('topP', above(0, 1)),
    minP: read('minP', between(0, 1)),
    repetitionPenalty: read('repetitionPenalty', above(0, 100)),
    presencePenalty: read('presencePenalty', between(-2, 2)),
    frequencyPenalty: read('frequencyPenalty', between(-2, 2)),
    seed: read('seed', orNull(whole(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER))),
    logitBias: Object.freeze({ ...read('logitBias', bias(vocabSize)) }),
    stop: Object.freeze([...read('stop', strings)]),
    stopTokenIds: Object.freeze([...read('stopTokenIds', ids(vocabSize))]),
    includeStopStrInOutput: read('includeStopStrInOutput', boolean),
    ignoreEos: read('ignoreEos', boolean),
    minTokens: read('minTokens', whole(0, MAX_COUNT)),
    maxTokens: read('maxTokens', orNull(whole(0, MAX_COUNT))),
    n: read('n', whole(1, maxAnswers)),
    logprobs: read('logprobs', orNull(whole(0, MAX_LOGPROBS))),
    promptLogprobs: read('promptLogprobs', orNull(whole(0, MAX_LOGPROBS))),
    skipSpecialTokens: read('skipSpecialTokens', boolean),
  }
  if (params.maxTokens !== null && params.minTokens > params.maxTokens)
    throw engineError('BAD_SAMPLING_PARAMS', `minTokens should be at most maxTokens (${params.maxTokens}), is ${params.minTokens}`)
  return Object.freeze(params)
}

type Check = (value: unknown) => string | undefined
const number = (v: unknown): v is number => typeof v === 'number' && Number.isFinite(v)
const between =
  (least: number, most: number): Check =>
  (v) =>
    number(v) && v >= least && v <= most ? undefined : `should be a number from ${least} to ${most}`
const above =
  (least: number, most: number): Check =>
  (v) =>
    number(v) && v > least && v <= most ? undefined : `should be a number above ${least} and at most ${most}`
const whole =
  (least: number, most: number): Check =>
  (v) =>
    Number.isSafeInteger(v) && (v as number) >= least && (v as number) <= most
      ? undefined
      : `should be a whole number from ${least} to ${most}`
const orNull =
  (check: Check): Check =>
  (v) => {
    const problem = v === null ? undefined : check(v)
    return problem && `${problem}, or null`
  }
const boolean: Check = (v) => (typeof v === 'boolean' ? undefined : 'should be true or false')
const strings: Check = (v) =>
  Array.isArray(v) && v.length <= MAX_STOP_STRINGS && v.every((s) => typeof s === 'string' && s !== '')
    ? undefined
    : `should be a list of at most ${MAX_STOP_STRINGS} strings, none of them empty`
const ids =
  (vocabSize: number): Check =>
  (v) =>
    Array.isArray(v) && v.every((id) => Number.isSafeInteger(id) && id >= 0 && id < vocabSize)
      ? undefined
      : `should be a list of token ids from 0 to ${vocabSize - 1}`
const bias =
  (vocabSize: number): Check =>
  (v) => {
    if (typeof v !== 'object' || v === null || Array.isArray(v)) return 'should be an object from token ids to numbers'
    for (const [key, value] of Object.entries(v)) {
      if (!/^\d{1,10}$/.test(key) || Number(key) >= vocabSize)
        return `should have token ids from 0 to ${vocabSize - 1} as keys, has ${shown(key)}`
      if (!number(value) || value < -100 || value > 100) return `should have numbers from -100 to 100, has ${shown(value)} for token ${key}`
    }
    return undefined
  }

/** A value for an error message: NaN and the like as they are, long ones cut. */
function shown(value: unknown): string {
  if (typeof value === 'number' || typeof value === 'bigint' || value === undefined) return String(value)
  let text: string
  try {
    text = JSON.stringify(value) ?? typeof value
  } catch {
    text = typeof value
  }
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}
