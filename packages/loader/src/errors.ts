import { AphroditeError } from '@aphrodite/tensor'

/** The codes of `@aphrodite/loader`. */
export const LOADER_ERRORS = [
  'MODEL_NOT_FOUND',
  'CHECKPOINT_NOT_FOUND',
  'CHECKPOINT_UNREADABLE',
  'CHECKPOINT_TRUNCATED',
  'CHECKPOINT_HEADER',
  'CHECKPOINT_TENSOR',
  'CHECKPOINT_INDEX',
  'CHECKPOINT_SHARD',
  'CHECKPOINT_DUPLICATE',
  'CHECKPOINT_CHANGED',
  'CHECKPOINT_CLOSED',
  'CONFIG_NOT_FOUND',
  'CONFIG_SYNTAX',
  'CONFIG_INVALID',
  'HUB_NOT_FOUND',
  'HUB_ACCESS',
  'HUB_OFFLINE',
  'HUB_NETWORK',
  'HUB_INTEGRITY',
  'HUB_DISK',
  'LOADER_OPTION',
] as const
export type LoaderErrorCode = (typeof LOADER_ERRORS)[number]
export const loaderError = (code: LoaderErrorCode, message: string, options?: ErrorOptions): AphroditeError =>
  new AphroditeError(code, message, options)
