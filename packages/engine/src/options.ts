import { CACHE_DTYPES, type CacheDType, didYouMean } from '@aphrodite/tensor'
import { engineError } from './errors.ts'

/** How an engine is sized. Everything has a default. */
export interface EngineOptions {
  /** The most tokens of a sequence, prompt and answer; null: what the model allows and the cache holds. */
  readonly maxModelLen: number | null
  /** Sequences computed at the same time. No more than maxNumBatchedTokens are, since each needs a token a step. */
  readonly maxNumSeqs: number
  /** Tokens of one step: decodes first, prompts cut into what is left. */
  readonly maxNumBatchedTokens: number
  readonly enablePrefixCaching: boolean
  /** Bytes for keys and values; null: what memoryFraction leaves. */
  readonly kvCacheBytes: number | null
  /** Of the device's free memory, once the weights are loaded. (0, 1] */
  readonly memoryFraction: number
  /** The type of keys and values in the cache. */
  readonly cacheDtype: CacheDType
  /** Tokens that end an answer by themselves. */
  readonly eosTokenIds: readonly number[]
  /** The greatest `n` of a request. */
  readonly maxAnswers: number
  /**
   * Bytes of one block of logits rows: [rows, vocab] is cut into such blocks. null: 64 MB, or on an asynchronous device what a row
   * for each of maxNumSeqs takes, up to 1 GB.
   */
  readonly maxLogitsBytes: number | null
  /** Bytes of the loaded weights, for the ledger alone. */
  readonly weightBytes: number
  /**
   * Enqueue the next step while the last one runs, before its tokens are known. 'auto': where the device is asynchronous; elsewhere
   * it wins nothing.
   */
  readonly asyncScheduling: 'auto' | boolean
  /**
   * Numbers of sequences, or all (true), whose decode steps are captured before the first request rather than when they are met.
   * Only an asynchronous device, whose steps are padded to few shapes, does so.
   */
  readonly captureAtStart: boolean | readonly number[]
  /** Where the seeds of requests without one come from; null: a random one. */
  readonly seed: number | null
}

export const ENGINE_DEFAULTS: EngineOptions = Object.freeze({
  maxModelLen: null,
  maxNumSeqs: 256,
  maxNumBatchedTokens: 512,
  enablePrefixCaching: true,
  kvCacheBytes: null,
  memoryFraction: 0.5,
  cacheDtype: 'f32',
  eosTokenIds: Object.freeze([]),
  maxAnswers: 64,
  maxLogitsBytes: null,
  weightBytes: 0,
  asyncScheduling: 'auto',
  captureAtStart: false,
  seed: null,
})

type Check = (value: unknown) => string | undefined
const count =
  (least: number, most: number): Check =>
  (v) =>
    Number.isSafeInteger(v) && (v as number) >= least && (v as number) <= most
      ? undefined
      : `should be a whole number from ${least} to ${most}`
const orNull =
  (check: Check): Check =>
  (v) =>
    v === null ? undefined : check(v)

const CHECKS: Readonly<Record<keyof EngineOptions, Check>> = {
  maxModelLen: orNull(count(1, 2 ** 31 - 1)),
  maxNumSeqs: count(1, 65536),
  maxNumBatchedTokens: count(1, 2 ** 20),
  enablePrefixCaching: (v) => (typeof v === 'boolean' ? undefined : 'should be true or false'),
  kvCacheBytes: orNull(count(1, 2 ** 50)),
  memoryFraction: (v) => (typeof v === 'number' && v > 0 && v <= 1 ? undefined : 'should be more than 0 and at most 1'),
  cacheDtype: (v) => (CACHE_DTYPES.includes(v as CacheDType) ? undefined : `should be one of ${CACHE_DTYPES.join(', ')}`),
  eosTokenIds: (v) =>
    Array.isArray(v) && v.every((id) => Number.isSafeInteger(id) && id >= 0) ? undefined : 'should be a list of token ids',
  maxAnswers: count(1, 65536),
  maxLogitsBytes: orNull(count(1, 2 ** 40)),
  weightBytes: count(0, 2 ** 50),
  asyncScheduling: (v) => (v === 'auto' || typeof v === 'boolean' ? undefined : "should be 'auto', true or false"),
  captureAtStart: (v) =>
    typeof v === 'boolean' || (Array.isArray(v) && v.every((n) => Number.isSafeInteger(n) && n > 0))
      ? undefined
      : 'should be true, false or a list of numbers of sequences',
  seed: orNull(count(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)),
}

/** Fills in defaults; an unknown key or a value out of range is an error that names it. */
export function resolveEngineOptions(options: Partial<EngineOptions> = {}): EngineOptions {
  for (const [key, value] of Object.entries(options)) {
    const check = CHECKS[key as keyof EngineOptions]
    if (!check) throw engineError('BAD_ENGINE_OPTION', `the engine has no option "${key}".${didYouMean(key, Object.keys(CHECKS))}`)
    const problem = value === undefined ? undefined : check(value)
    if (problem) throw engineError('BAD_ENGINE_OPTION', `${key} ${problem}, is ${JSON.stringify(value)}`)
  }
  const given = Object.fromEntries(Object.entries(options).filter(([, v]) => v !== undefined))
  return Object.freeze({ ...ENGINE_DEFAULTS, ...given })
}
