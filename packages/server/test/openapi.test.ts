import { Validator } from '@seriousme/openapi-schema-validator'
import type { TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import { describe, expect, it } from 'vitest'
import { createServer } from '../src/index.ts'
import { ErrorSchema } from '../src/schemas/answer.ts'
import { ChatCompletionChunkSchema, ChatCompletionSchema } from '../src/schemas/chat.ts'
import { CompletionChunkSchema, CompletionSchema } from '../src/schemas/completions.ts'
import { ModelListSchema, ModelSchema } from '../src/schemas/models.ts'
import { DetokenizeSchema, TokenizeSchema } from '../src/schemas/tokenize.ts'
import { FakeModel } from './fake-model.ts'
import { eventsOf, serve } from './serve.ts'

interface Operation {
  operationId: string
  summary: string
  tags: string[]
  security?: unknown[]
  requestBody?: { content: Record<string, { schema: object }> }
  responses: Record<string, { description: string; content: Record<string, { schema: object }> }>
}
interface Document {
  openapi: string
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, object> }
}

async function documentOf(app: ReturnType<typeof createServer>): Promise<Document> {
  return JSON.parse((await app.inject('/openapi.json')).body) as Document
}

describe('/openapi.json', () => {
  it('is valid OpenAPI 3.1, with a key and without', async () => {
    for (const options of [{}, { apiKey: 'k' }]) {
      const app = createServer(new FakeModel(), options)
      const document = await documentOf(app)
      expect(document.openapi).toBe('3.1.0')
      const result = await new Validator().validate(document)
      expect(result.errors).toBeUndefined()
      expect(result.valid).toBe(true)
      await app.close()
    }
  })

  it('has every route, each with an id, a summary, its answers and, where it takes one, its body', async () => {
    const app = createServer(new FakeModel(), { apiKey: 'k' })
    const routes: string[] = []
    app.addHook('onRoute', ({ method, url }) => {
      for (const one of [method].flat()) if (one !== 'HEAD') routes.push(`${one.toLowerCase()} ${url.replace('*', '{model}')}`)
    })
    const { paths } = await documentOf(app)
    const documented = Object.entries(paths).flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method} ${path}`))
    expect(documented.sort()).toEqual(routes.sort())
    expect(documented).toHaveLength(9)
    const ids = new Set<string>()
    for (const [path, methods] of Object.entries(paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        ids.add(operation.operationId)
        expect(operation.summary, path).toBeTruthy()
        expect(operation.tags, path).toHaveLength(1)
        expect(operation.responses['200']!.content, path).toHaveProperty('application/json')
        expect(Boolean(operation.requestBody?.content['application/json']), path).toBe(method === 'post')
        for (const [status, { content }] of Object.entries(operation.responses)) {
          if (status !== '200') expect(content['application/json']!.schema).toEqual({ $ref: '#/components/schemas/Error' })
        }
        // Where no key is asked for, the document says so.
        expect(operation.responses['401'] === undefined, path).toBe(operation.security?.length === 0)
      }
    }
    expect(ids.size).toBe(9)
    await app.close()
  })

  it('describes what the server really answers', async () => {
    const { post, url } = await serve()
    const fits = (schema: TSchema, value: unknown) => {
      const check = Compile(schema)
      expect(check.Check(value) ? [] : check.Errors(value)).toEqual([])
    }
    const get = async (path: string) => (await (await fetch(`${url}${path}`)).json()) as unknown
    const ask = async (path: string, body: object) => (await (await post(path, body)).json()) as unknown
    const chunks = async (path: string, body: object) =>
      eventsOf(await (await post(path, { ...body, stream: true, stream_options: { include_usage: true } })).text())

    fits(ModelListSchema, await get('/v1/models'))
    fits(ModelSchema, await get('/v1/models/fake'))
    fits(ErrorSchema, await get('/v1/models/none'))
    fits(ErrorSchema, await ask('/v1/completions', {}))
    fits(TokenizeSchema, await ask('/tokenize', { prompt: 'a' }))
    fits(DetokenizeSchema, await ask('/detokenize', { tokens: [97] }))
    const messages = [{ role: 'user', content: 'a' }]
    for (const more of [{}, { logprobs: 2, return_token_ids: true, n: 2 }]) {
      fits(CompletionSchema, await ask('/v1/completions', { prompt: 'a', prompt_logprobs: 1, echo: true, ...more }))
      for (const chunk of await chunks('/v1/completions', { prompt: 'a', ...more })) fits(CompletionChunkSchema, chunk)
      const chat = { messages, ...more, ...('logprobs' in more && { logprobs: true, top_logprobs: 2 }) }
      fits(ChatCompletionSchema, await ask('/v1/chat/completions', { ...chat, prompt_logprobs: 1 }))
      for (const chunk of await chunks('/v1/chat/completions', chat)) fits(ChatCompletionChunkSchema, chunk)
    }
  })
})
