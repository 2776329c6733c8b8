import { didYouMean } from '@aphrodite/tensor'
import { CACHE_DTYPE_NAMES } from './dtype.ts'
import { llmError } from './errors.ts'
import type { LLMOptions } from './types.ts'

/** Options with their defaults; what is still undefined is decided when the model is known. */
export type ResolvedOptions = Readonly<
  Required<
    Pick<
      LLMOptions,
      | 'model'
      | 'device'
      | 'dtype'
      | 'kvCacheDtype'
      | 'loadFormat'
      | 'skipTokenizerInit'
      | 'tensorParallelSize'
      | 'rankTimeout'
      | 'maxNumSeqs'
      | 'enablePrefixCaching'
      | 'memoryFraction'
      | 'gpuMemoryUtilization'
      | 'captureAtStart'
      | 'pinThreads'
      | 'plugins'
    >
  > &
    LLMOptions
>

export const LLM_DEFAULTS = Object.freeze({
  device: 'auto',
  dtype: 'auto',
  kvCacheDtype: 'auto',
  loadFormat: 'auto',
  skipTokenizerInit: false,
  tensorParallelSize: 1,
  rankTimeout: 30,
  maxNumSeqs: 256,
  enablePrefixCaching: true,
  memoryFraction: 0.5,
  gpuMemoryUtilization: 0.9,
  captureAtStart: false,
  pinThreads: true,
  plugins: Object.freeze([]) as readonly string[],
} as const)

/** A GPU computes thousands of tokens as fast as it reads its weights; on the CPU so many would only keep others waiting. */
export const MAX_NUM_BATCHED_TOKENS = Object.freeze({ cpu: 512, cuda: 8192 } as const)

type Check = (value: unknown) => string | undefined
const string: Check = (v) => (typeof v === 'string' && v !== '' ? undefined : 'should be a string')
const boolean: Check = (v) => (typeof v === 'boolean' ? undefined : 'should be true or false')
const one =
  (...values: readonly string[]): Check =>
  (v) =>
    values.includes(v as string) ? undefined : `should be one of ${values.join(', ')}`
const count =
  (least: number, most: number): Check =>
  (v) =>
    Number.isSafeInteger(v) && (v as number) >= least && (v as number) <= most
      ? undefined
      : `should be a whole number from ${least} to ${most}`
const fraction: Check = (v) => (typeof v === 'number' && v > 0 && v <= 1 ? undefined : 'should be more than 0 and at most 1')

const CHECKS: Readonly<Record<keyof LLMOptions, Check>> = {
  model: string,
  revision: string,
  tokenizer: string,
  skipTokenizerInit: boolean,
  chatTemplate: string,
  device: (v) => (/^(auto|cpu|cuda(:\d{1,3})?)$/.test(String(v)) ? undefined : 'should be auto, cpu, cuda or cuda:N'),
  dtype: one('auto', 'float32', 'bfloat16', 'float16'),
  kvCacheDtype: one(...CACHE_DTYPE_NAMES),
  loadFormat: one('auto', 'safetensors', 'dummy'),
  quantization: string,
  tensorParallelSize: count(1, 256),
  rank: (v) => (typeof v === 'object' && v !== null ? undefined : 'should be what rankFromEnvironment returns'),
  rankTimeout: (v) => (typeof v === 'number' && v >= 1 && v <= 86400 ? undefined : 'should be seconds from 1 to 86400'),
  maxModelLen: count(1, 2 ** 31),
  maxNumSeqs: count(1, 65536),
  maxNumBatchedTokens: count(1, 2 ** 20),
  enablePrefixCaching: boolean,
  kvCacheBytes: count(1, 2 ** 50),
  memoryFraction: fraction,
  gpuMemoryUtilization: fraction,
  threads: count(1, 1024),
  captureAtStart: boolean,
  pinThreads: boolean,
  plugins: (v) => (Array.isArray(v) && v.every((p) => typeof p === 'string') ? undefined : 'should be a list of module names'),
  seed: count(0, 2 ** 32 - 1),
  onProgress: (v) => (typeof v === 'function' ? undefined : 'should be a function'),
}

/** Fills in defaults; an unknown key or a value out of range is an error that names it. */
export function resolveOptions(options: LLMOptions): ResolvedOptions {
  if (typeof options !== 'object' || options === null) throw llmError('BAD_OPTION', 'LLM.create takes an object: LLM.create({ model })')
  for (const [key, value] of Object.entries(options)) {
    const check = CHECKS[key as keyof LLMOptions]
    if (!check) throw llmError('BAD_OPTION', `LLM.create has no option "${key}".${didYouMean(key, Object.keys(CHECKS))}`)
    const problem = value === undefined ? undefined : check(value)
    if (problem) throw llmError('BAD_OPTION', `${key} ${problem}, is ${JSON.stringify(value)}`)
  }
  if (options.model === undefined)
    throw llmError('BAD_OPTION', 'LLM.create needs `model`: a folder with config.json and weights, or a hub id such as Qwen/Qwen3-0.6B')
  const given = Object.fromEntries(Object.entries(options).filter(([, v]) => v !== undefined)) as unknown as LLMOptions
  const resolved: ResolvedOptions = { ...LLM_DEFAULTS, ...given }
  if (resolved.rank && resolved.rank.size !== resolved.tensorParallelSize)
    throw llmError(
      'BAD_OPTION',
      `tensorParallelSize is ${resolved.tensorParallelSize}, and ${resolved.rank.size} ranks were started. Start as many as the model is to be shared by.`,
    )
  if (resolved.quantization !== undefined)
    throw llmError(
      'NOT_SUPPORTED',
      `quantization is "${resolved.quantization}"; this version computes with float32, bfloat16 and float16 weights only. Leave it out.`,
    )
  return Object.freeze(resolved)
}
