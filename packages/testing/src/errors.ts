import { AphroditeError } from '@aphrodite/tensor'

/** The codes of `@aphrodite/testing`. */
export const TESTING_ERRORS = ['BAD_ADDRESS', 'BAD_DTYPE', 'BAD_CHECKPOINT', 'LOCKSTEP', 'BAD_REFERENCE_FOLDER', 'NOT_CONFORMING'] as const
export type TestingErrorCode = (typeof TESTING_ERRORS)[number]
export const testingError = (code: TestingErrorCode, message: string): AphroditeError => new AphroditeError(code, message)
