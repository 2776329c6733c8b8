import swagger from '@fastify/swagger'
import type { FastifyInstance } from 'fastify'
import type { TSchema } from 'typebox'
import { ErrorSchema } from './schemas/answer.ts'
import { VERSION } from './version.ts'

const json = 'application/json'

/** A JSON answer, for a route's `schema.response`. */
export const jsonOf = (description: string, schema: TSchema) => ({ description, content: { [json]: { schema } } })

/** An answer that is JSON, or with `stream` server-sent events, each with one chunk. */
export const eventStreamOf = (description: string, whole: TSchema, chunk: TSchema) => ({
  description: `${description} With stream: events whose data is one chunk each, or an error; the last is [DONE].`,
  content: { [json]: { schema: whole }, 'text/event-stream': { schema: chunk } },
})

const REFUSALS: Readonly<Record<number, string>> = {
  400: 'Something in the request is wrong; param names the field.',
  401: 'The API key is missing or wrong.',
  404: 'There is no such model.',
  413: 'The body is too large.',
  415: 'The body is not declared as application/json.',
  500: 'The server failed.',
  503: 'The engine is dead, or the server is shutting down.',
}
/** The error answers of a route. */
export const refusals = (...statuses: number[]) =>
  Object.fromEntries(statuses.map((status) => [status, jsonOf(REFUSALS[status]!, ErrorSchema)]))

/** Collects the routes registered after it into the document that /openapi.json gives. */
export async function registerOpenApi(app: FastifyInstance, withKey: boolean): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Aphrodite', version: VERSION, description: 'A language model over HTTP, in the form of the OpenAI API.' },
      servers: [{ url: '/' }],
      tags: [
        { name: 'OpenAI', description: 'Endpoints in the form of the OpenAI API.' },
        { name: 'Tokens', description: 'Text to token ids and back.' },
        { name: 'Server', description: 'The server itself.' },
      ],
      ...(withKey && {
        components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } } },
        security: [{ bearer: [] }],
      }),
    },
    transformObject: (document) => ('openapiObject' in document ? nameSchemas(document.openapiObject as Document) : {}) as never,
  })
}

interface Document {
  paths: Record<string, Record<string, unknown>>
  components?: { schemas?: Record<string, unknown> }
}

/** Schemas that have a title become components of that name, referred to from where they stood. */
function nameSchemas(document: Document): Document {
  const schemas: Record<string, unknown> = {}
  const visit = (node: unknown): unknown => {
    if (Array.isArray(node)) return node.map(visit)
    if (typeof node !== 'object' || node === null) return node
    const copy = Object.fromEntries(Object.entries(node).map(([key, value]) => [key, visit(value)]))
    const title = (node as { title?: unknown }).title
    if (typeof title !== 'string' || !('type' in node)) return copy
    schemas[title] = copy
    return { $ref: `#/components/schemas/${title}` }
  }
  const paths = visit(document.paths) as Document['paths']
  return { ...document, paths, components: { ...document.components, schemas } }
}
