import type { CacheDType, FloatDType } from '@aphrodite/tensor'
import { llmError } from './errors.ts'
import type { LLMOptions } from './types.ts'

type DTypeName = Exclude<NonNullable<LLMOptions['dtype']>, 'auto'>
const FROM_NAME: Readonly<Record<DTypeName, FloatDType>> = { float32: 'f32', bfloat16: 'bf16', float16: 'f16' }
export const DTYPE_NAME: Readonly<Record<FloatDType, DTypeName>> = { f32: 'float32', bf16: 'bfloat16', f16: 'float16' }

/**
 * What the engine computes in: what was asked for, else what the checkpoint says it is, else bfloat16. A GPU multiplies 16-bit
 * numbers many times as fast as 32-bit ones, so that float32 checkpoints become bfloat16 there unless float32 is asked for.
 */
export function chooseDType(
  asked: NonNullable<LLMOptions['dtype']>,
  config: Readonly<Record<string, unknown>>,
  kind: 'cpu' | 'cuda',
): FloatDType {
  if (asked !== 'auto') return FROM_NAME[asked]
  const written = config['dtype'] ?? config['torch_dtype']
  if (written === undefined || written === null) return 'bf16'
  const name = String(written).replace(/^torch\./, '')
  if (name === 'float32' && kind === 'cuda') return 'bf16'
  if (name in FROM_NAME) return FROM_NAME[name as DTypeName]
  throw llmError('NOT_SUPPORTED', `config.json: dtype is "${name}"; choose one of ${Object.keys(FROM_NAME).join(', ')} with dtype`)
}

export const CACHE_DTYPE_NAMES = ['auto', 'f32', 'bf16', 'f16', 'fp8', 'fp8_e4m3', 'fp8_e5m2'] as const
type CacheDTypeName = (typeof CACHE_DTYPE_NAMES)[number]
const CACHE_FROM_NAME: Readonly<Record<Exclude<CacheDTypeName, 'auto'>, CacheDType>> = {
  f32: 'f32',
  bf16: 'bf16',
  f16: 'f16',
  fp8: 'f8e4m3',
  fp8_e4m3: 'f8e4m3',
  fp8_e5m2: 'f8e5m2',
}

/** What keys and values are kept in: what was asked for, else what the engine computes in. */
export const chooseCacheDType = (asked: CacheDTypeName, dtype: FloatDType): CacheDType =>
  asked === 'auto' ? dtype : CACHE_FROM_NAME[asked]

/** Of `LLMInfo`: the name that the option has for it. */
export const cacheDTypeName = (dtype: CacheDType): CacheDTypeName =>
  dtype === 'f8e4m3' ? 'fp8_e4m3' : dtype === 'f8e5m2' ? 'fp8_e5m2' : dtype
