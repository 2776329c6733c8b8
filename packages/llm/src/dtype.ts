import type { FloatDType } from '@aphrodite/tensor'
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
