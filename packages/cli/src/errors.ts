import { AphroditeError } from '@aphrodite/tensor'

/** The codes of `@aphrodite/cli`. */
export const CLI_ERRORS = ['BAD_FLAG', 'BAD_CONFIG_FILE', 'BAD_COMMAND'] as const
export type CLIErrorCode = (typeof CLI_ERRORS)[number]
export const cliError = (code: CLIErrorCode, message: string): AphroditeError => new AphroditeError(code, message)
