import { didYouMean } from '@aphrodite/tensor'
import type { FastifyBaseLogger } from 'fastify'
import { serverError } from './errors.ts'

export interface ServerOptions {
  /** The names that requests may call the model by; the first is the one in answers. Default: `llm.info.model`. */
  readonly servedModelNames?: readonly string[]
  /** When given, requests need `Authorization: Bearer KEY` with one of these. */
  readonly apiKey?: string | readonly string[]
  /** Origins of web pages that may call this server; `['*']`: every one. */
  readonly corsOrigins?: readonly string[]
  /** The largest body of a request, in bytes. */
  readonly bodyLimit?: number
  /** The most answers that one request may ask for: prompts times n. */
  readonly maxChoices?: number
  /** What to do with fields nobody knows: refuse them, or ignore them and name them in the header `x-ignored-fields`. */
  readonly unknownFields?: 'error' | 'ignore'
  /** Lets requests bring their own `chat_template`: a program that runs in this process. */
  readonly trustRequestChatTemplate?: boolean
  /** How long the reader of a stream may leave its buffer full before it is cut off, in milliseconds. */
  readonly slowReaderTimeout?: number
  /** A stream that is silent for so long gets a comment line, in milliseconds, so that proxies keep it. */
  readonly keepAliveInterval?: number
  /** How long a client may take to send its request, in milliseconds. */
  readonly requestTimeout?: number
  /** How long the engine may take to answer /health, in milliseconds. */
  readonly healthTimeout?: number
  /** How long running requests may go on after `close()`, in milliseconds; then they are aborted. */
  readonly shutdownTimeout?: number
  /** false: none. true: JSON lines on stdout. A string: that level. Or a logger of pino's shape. */
  readonly logger?: boolean | string | FastifyBaseLogger
  /** One line of the log for every request: method, path, status, milliseconds. */
  readonly logRequests?: boolean
}

export type ResolvedServerOptions = Readonly<Required<Omit<ServerOptions, 'servedModelNames'>> & Pick<ServerOptions, 'servedModelNames'>>

export const SERVER_DEFAULTS = Object.freeze({
  apiKey: Object.freeze([]) as string | readonly string[],
  corsOrigins: Object.freeze([]) as readonly string[],
  bodyLimit: 4 * 1024 * 1024,
  maxChoices: 1024,
  unknownFields: 'error',
  trustRequestChatTemplate: false,
  slowReaderTimeout: 30_000,
  keepAliveInterval: 15_000,
  requestTimeout: 120_000,
  healthTimeout: 10_000,
  shutdownTimeout: 30_000,
  logger: false,
  logRequests: false,
} as const)

type Check = (value: unknown) => string | undefined
const whole =
  (least: number, most = 2 ** 31 - 1): Check =>
  (v) =>
    Number.isSafeInteger(v) && (v as number) >= least && (v as number) <= most
      ? undefined
      : `should be a whole number from ${least} to ${most}`
const strings: Check = (v) =>
  Array.isArray(v) && v.every((s) => typeof s === 'string' && s !== '') ? undefined : 'should be a list of strings, none of them empty'

const CHECKS: Readonly<Record<keyof ServerOptions, Check>> = {
  servedModelNames: (v) => strings(v) ?? ((v as unknown[]).length > 0 ? undefined : 'should have at least one name'),
  apiKey: (v) => strings(typeof v === 'string' ? [v] : v),
  corsOrigins: strings,
  bodyLimit: whole(1024),
  maxChoices: whole(1),
  unknownFields: (v) => (v === 'error' || v === 'ignore' ? undefined : 'should be "error" or "ignore"'),
  trustRequestChatTemplate: (v) => (typeof v === 'boolean' ? undefined : 'should be true or false'),
  slowReaderTimeout: whole(1),
  keepAliveInterval: whole(1),
  requestTimeout: whole(0),
  healthTimeout: whole(1),
  shutdownTimeout: whole(0),
  logRequests: (v) => (typeof v === 'boolean' ? undefined : 'should be true or false'),
  logger: (v) =>
    typeof v === 'boolean' || typeof v === 'string' || (typeof v === 'object' && v !== null && 'info' in v)
      ? undefined
      : 'should be true, false, a level, or a logger',
}

/** Fills in defaults; an unknown key or a value out of range is an error that names it. */
export function resolveServerOptions(options: ServerOptions): ResolvedServerOptions {
  for (const [key, value] of Object.entries(options)) {
    const check = CHECKS[key as keyof ServerOptions]
    if (!check) throw serverError('BAD_SERVER_OPTION', `createServer has no option "${key}".${didYouMean(key, Object.keys(CHECKS))}`)
    const problem = value === undefined ? undefined : check(value)
    // Keys are secrets: they are not repeated in a message.
    if (problem) throw serverError('BAD_SERVER_OPTION', `${key} ${problem}${key === 'apiKey' ? '' : `, is ${JSON.stringify(value)}`}`)
  }
  const given = Object.fromEntries(Object.entries(options).filter(([, v]) => v !== undefined)) as ServerOptions
  return Object.freeze({ ...SERVER_DEFAULTS, ...given })
}
