import { AphroditeError } from '@aphrodite/tensor'

/** The body of every answer that is not 2xx, and of an error event inside a stream. */
export interface ErrorBody {
  readonly error: {
    readonly message: string
    readonly type: string
    readonly param: string | null
    readonly code: string | null
  }
}

/** An error as the client is told it: HTTP status, OpenAI's code, and the field at fault. */
export class ApiError extends Error {
  readonly status: number
  readonly code: string | null
  readonly param: string | null
  readonly headers: Readonly<Record<string, string>>
  constructor(
    status: number,
    code: string | null,
    message: string,
    more: { param?: string | null; headers?: Readonly<Record<string, string>>; cause?: unknown } = {},
  ) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause })
    this.name = 'ApiError'
    this.status = status
    this.code = code
    this.param = more.param ?? null
    this.headers = more.headers ?? {}
  }

  get body(): ErrorBody {
    const type = this.status === 429 ? 'rate_limit_error' : this.status >= 500 ? 'server_error' : 'invalid_request_error'
    return { error: { message: this.message, type, param: this.param, code: this.code } }
  }
}

/** A field whose value cannot be used. */
export const invalidValue = (param: string, message: string): ApiError => new ApiError(400, 'invalid_value', message, { param })
/** A field, or a value of one, that this server does not have. */
export const unsupported = (param: string, message: string): ApiError => new ApiError(400, 'unsupported_value', message, { param })

/** Nobody reads this one: its client has hung up. */
export const clientGone = (): ApiError => new ApiError(499, 'client_gone', 'The client closed the connection.')
export const shuttingDown = (): ApiError =>
  new ApiError(503, 'shutting_down', 'The server is shutting down. Try again, or ask another one.', { headers: { connection: 'close' } })

/** Codes of the packages below whose cause is the request. Everything else of theirs is the server's own fault. */
const OF_THE_REQUEST: Readonly<Record<string, { readonly status: number; readonly code: string }>> = {
  PROMPT_TOO_LONG: { status: 400, code: 'context_length_exceeded' },
  BAD_PROMPT: { status: 400, code: 'invalid_prompt' },
  BAD_SAMPLING_PARAMS: { status: 400, code: 'invalid_value' },
  BAD_REQUEST: { status: 400, code: 'invalid_value' },
  SEQUENCE_TOO_LONG: { status: 400, code: 'context_length_exceeded' },
  CACHE_TOO_SMALL: { status: 400, code: 'context_length_exceeded' },
  BAD_TEXT: { status: 400, code: 'invalid_prompt' },
  CHAT_TEMPLATE: { status: 400, code: 'invalid_prompt' },
  TOO_MANY_TOKENS: { status: 400, code: 'context_length_exceeded' },
  TOKEN_ID: { status: 400, code: 'invalid_value' },
  BAD_STOP_STRING: { status: 400, code: 'invalid_value' },
  NO_TOKENIZER: { status: 400, code: 'no_tokenizer' },
  NOT_SUPPORTED: { status: 400, code: 'unsupported_value' },
}

/**
 * What a client is told about anything thrown. A cause that is not the request's own is named in the log, by request id,
 * and not to the client: messages from inside may hold paths or other people's text. Which rank has failed, of several, is told.
 */
export function toApiError(error: unknown, param: string | null = null): ApiError {
  if (error instanceof ApiError) return error
  if (error instanceof AphroditeError) {
    const known = OF_THE_REQUEST[error.code]
    if (known) return new ApiError(known.status, known.code, error.message, { param, cause: error })
    if (error.code === 'ENGINE_DEAD' || error.code === 'ENGINE_CLOSED') {
      return new ApiError(503, 'engine_dead', 'The engine has stopped. Nothing is answered until the server is started anew.', {
        cause: error,
      })
    }
    if (error.code === 'RANK_FAILED' || error.code === 'RANKS_DIVERGED') {
      const message = `The engine has stopped: ${error.message.replace(/\.$/, '')}. Nothing is answered until the server is started anew.`
      return new ApiError(503, 'rank_failed', message, { cause: error })
    }
  }
  return new ApiError(
    500,
    'internal_error',
    'The server failed on this request; its log says more, under the x-request-id of this answer.',
    {
      cause: error,
    },
  )
}
