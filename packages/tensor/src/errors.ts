/**
 * Every error that Aphrodite raises on purpose: a code, a sentence that names the thing, and what to do about it.
 * Each package lists its codes in its own `errors.ts`; `docs/reference/errors.md` describes them all.
 */
export class AphroditeError extends Error {
  readonly code: string
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'AphroditeError'
    this.code = code
  }
}

/** The codes of `@aphrodite/tensor`. */
export const TENSOR_ERRORS = ['BAD_SHAPE', 'BAD_ARGUMENT', 'OUT_OF_MEMORY', 'WORKSPACE_TOO_SMALL', 'DEVICE_CLOSED', 'RANK_FAILED'] as const
export type TensorErrorCode = (typeof TENSOR_ERRORS)[number]
export const tensorError = (code: TensorErrorCode, message: string): AphroditeError => new AphroditeError(code, message)
