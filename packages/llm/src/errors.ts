import { AphroditeError } from '@aphrodite/tensor'

/** The codes of `@aphrodite/llm`. */
export const LLM_ERRORS = [
  'BAD_OPTION',
  'BAD_RANK',
  'BAD_REFERENCE',
  'NO_DEVICE',
  'NOT_SUPPORTED',
  'NO_TOKENIZER',
  'PROMPT_TOO_LONG',
  'BAD_PROMPT',
  'ENGINE_DEAD',
  'RANK_CHANNEL',
] as const
export type LLMErrorCode = (typeof LLM_ERRORS)[number]
export const llmError = (code: LLMErrorCode, message: string, options?: ErrorOptions): AphroditeError =>
  new AphroditeError(code, message, options)
