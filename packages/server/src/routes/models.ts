import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { type ServerContext, servedModel } from '../context.ts'
import { jsonOf, refusals } from '../openapi.ts'
import { type Model, ModelListSchema, ModelSchema } from '../schemas/models.ts'

const ModelParams = Type.Object({ model: Type.String({ description: 'The name; slashes may be escaped.' }) })

export function modelRoutes(app: FastifyInstance, context: ServerContext): void {
  const { llm, modelNames, created } = context
  const model = (id: string): Model => ({
    id,
    object: 'model',
    created,
    owned_by: 'aphrodite',
    root: llm.info.model,
    parent: null,
    max_model_len: llm.info.maxModelLen,
  })

  app.get('/v1/models', {
    schema: {
      operationId: 'listModels',
      summary: 'The names that requests may use.',
      tags: ['OpenAI'],
      response: { 200: jsonOf('The names.', ModelListSchema), ...refusals(401) },
    },
    handler: async () => ({ object: 'list', data: modelNames.map(model) }),
  })

  // Names may have slashes, sent as they are or escaped.
  app.get<{ Params: { '*': string } }>('/v1/models/*', {
    // OpenAPI has no wildcards: there the rest of the path is a parameter.
    config: { swaggerTransform: ({ schema }) => ({ schema: { ...schema, params: ModelParams }, url: '/v1/models/:model' }) },
    schema: {
      operationId: 'getModel',
      summary: 'One of them.',
      tags: ['OpenAI'],
      response: { 200: jsonOf('The model.', ModelSchema), ...refusals(401, 404) },
    },
    handler: async ({ params }) => model(servedModel(context, params['*'])),
  })
}
