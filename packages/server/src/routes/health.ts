import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { ApiError, toApiError } from '../api-error.ts'
import type { ServerContext } from '../context.ts'
import { jsonOf, refusals } from '../openapi.ts'

export function healthRoutes(app: FastifyInstance, { llm, options }: ServerContext): void {
  let asked: Promise<unknown> | undefined
  /** One question to the engine, however many ask. */
  const ask = (): Promise<unknown> => {
    asked ??= llm.stats().finally(() => {
      asked = undefined
    })
    return asked
  }

  app.get('/health', {
    config: { public: true },
    schema: {
      operationId: 'getHealth',
      summary: 'Whether the engine lives: it is asked each time.',
      security: [],
      tags: ['Server'],
      response: {
        200: jsonOf('It does.', Type.Object({ status: Type.Literal('ok'), device: Type.String() }, { title: 'Health' })),
        ...refusals(503),
      },
    },
    handler: async () => {
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<never>((_, reject) => {
        const problem = new ApiError(503, 'engine_unresponsive', `The engine did not answer within ${options.healthTimeout / 1000} s.`)
        timer = setTimeout(reject, options.healthTimeout, problem)
      })
      try {
        await Promise.race([ask(), late])
      } catch (error) {
        const shown = toApiError(error)
        throw shown.status === 503 ? shown : new ApiError(503, 'engine_dead', 'The engine is not running.', { cause: error })
      } finally {
        clearTimeout(timer)
      }
      return { status: 'ok', device: llm.info.device }
    },
  })
}
