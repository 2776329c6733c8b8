import { AphroditeError } from '@aphrodite/tensor'

/** The codes of `@aphrodite/engine`. */
export const ENGINE_ERRORS = [
  'BAD_SAMPLING_PARAMS',
  'BAD_ENGINE_OPTION',
  'BAD_REQUEST',
  'SEQUENCE_TOO_LONG',
  'CACHE_TOO_SMALL',
  'STEP_FAILED',
  'ENGINE_CLOSED',
  'UNBALANCED',
  'RANKS_DIVERGED',
] as const
export type EngineErrorCode = (typeof ENGINE_ERRORS)[number]
export const engineError = (code: EngineErrorCode, message: string, options?: ErrorOptions): AphroditeError =>
  new AphroditeError(code, message, options)

/** 6592 → `6,592`: the same on every machine, whatever its locale. */
export const grouped = (n: number): string => n.toLocaleString('en-US')
