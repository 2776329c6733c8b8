import { AphroditeError } from '@aphrodite/tensor'

/** The codes of `@aphrodite/tokenizer`. */
export const TOKENIZER_ERRORS = [
  'NO_TOKENIZER',
  'BAD_TOKENIZER',
  'BAD_TEXT',
  'TOO_MANY_TOKENS',
  'TOKEN_ID',
  'CHAT_TEMPLATE',
  'BAD_STOP_STRING',
] as const
export type TokenizerErrorCode = (typeof TOKENIZER_ERRORS)[number]
export const tokenizerError = (code: TokenizerErrorCode, message: string, options?: ErrorOptions): AphroditeError =>
  new AphroditeError(code, message, options)
