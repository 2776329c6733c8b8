import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { jsonOf } from '../openapi.ts'

export function openapiRoutes(app: FastifyInstance): void {
  let document: string | undefined
  app.get('/openapi.json', {
    config: { public: true },
    schema: {
      operationId: 'getOpenApi',
      summary: 'This document.',
      security: [],
      tags: ['Server'],
      response: { 200: jsonOf('An OpenAPI 3.1 document.', Type.Record(Type.String(), Type.Unknown(), { title: 'OpenApiDocument' })) },
    },
    handler: async (_request, reply) => {
      document ??= JSON.stringify(app.swagger())
      return reply.type('application/json; charset=utf-8').send(document)
    },
  })
}
