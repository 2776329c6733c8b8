import type { LanguageModel } from '@aphrodite/llm'
import { ApiError } from './api-error.ts'
import type { Lifetime } from './lifetime.ts'
import type { ResolvedServerOptions } from './options.ts'

/** What every route is given. */
export interface ServerContext {
  readonly llm: LanguageModel
  readonly options: ResolvedServerOptions
  readonly lifetime: Lifetime
  /** What requests may call the model; the first name is the one in answers. */
  readonly modelNames: readonly string[]
  /** When the server started, in seconds since 1970. */
  readonly created: number
}

/** The name that answers carry. An unknown one is 404, as OpenAI's. */
export function servedModel(context: ServerContext, asked: string | undefined): string {
  if (asked === undefined) return context.modelNames[0]!
  if (context.modelNames.includes(asked)) return asked
  const names = context.modelNames.map((name) => JSON.stringify(name)).join(', ')
  throw new ApiError(404, 'model_not_found', `There is no model ${JSON.stringify(asked.slice(0, 200))} here. This server has ${names}.`, {
    param: 'model',
  })
}
