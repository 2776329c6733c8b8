import { AphroditeError } from '@aphrodite/tensor'

/** The codes of `@aphrodite/models`. */
export const MODELS_ERRORS = ['UNKNOWN_ARCHITECTURE', 'BAD_MODEL_MODULE', 'BAD_PLUGIN'] as const
export type ModelsErrorCode = (typeof MODELS_ERRORS)[number]
export const modelsError = (code: ModelsErrorCode, message: string, options?: ErrorOptions): AphroditeError =>
  new AphroditeError(code, message, options)
