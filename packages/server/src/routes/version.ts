import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { jsonOf } from '../openapi.ts'
import { VERSION } from '../version.ts'

export function versionRoutes(app: FastifyInstance): void {
  app.get('/version', {
    config: { public: true },
    schema: {
      operationId: 'getVersion',
      summary: 'The version of the server.',
      security: [],
      tags: ['Server'],
      response: { 200: jsonOf('The version.', Type.Object({ version: Type.String() }, { title: 'Version' })) },
    },
    handler: async () => ({ version: VERSION }),
  })
}
