import { AphroditeError } from '@aphrodite/tensor'

/** The codes of `@aphrodite/server`: what goes wrong before a request is there. What a client sees is an `ApiError`. */
export const SERVER_ERRORS = ['BAD_SERVER_OPTION', 'PORT_IN_USE', 'CANNOT_LISTEN'] as const
export type ServerErrorCode = (typeof SERVER_ERRORS)[number]
export const serverError = (code: ServerErrorCode, message: string, options?: ErrorOptions): AphroditeError =>
  new AphroditeError(code, message, options)
