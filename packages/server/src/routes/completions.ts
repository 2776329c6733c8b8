import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { invalidValue, unsupported } from '../api-error.ts'
import { type ServerContext, servedModel } from '../context.ts'
import { streamAnswers } from '../delta-stream.ts'
import { checkFields } from '../fields.ts'
import { CompletionChunks, type CompletionForm, completion } from '../openai-completions.ts'
import { tokenName } from '../openai-logprobs.ts'
import { completionPrompts } from '../openai-prompts.ts'
import { checkLength, requestOptions, samplingParams } from '../openai-sampling.ts'
import { eventStreamOf, refusals } from '../openapi.ts'
import { CompletionChunkSchema, type CompletionRequest, CompletionRequestSchema, CompletionSchema } from '../schemas/completions.ts'

export function completionRoutes(app: FastifyInstance, context: ServerContext): void {
  const { llm, options, lifetime } = context
  app.withTypeProvider<TypeBoxTypeProvider>().post('/v1/completions', {
    preValidation: checkFields(CompletionRequestSchema, options.unknownFields),
    schema: {
      operationId: 'createCompletion',
      summary: 'Continue one or more prompts.',
      tags: ['OpenAI'],
      body: CompletionRequestSchema,
      response: {
        200: eventStreamOf('The answers.', CompletionSchema, CompletionChunkSchema),
        ...refusals(400, 401, 404, 413, 415, 500, 503),
      },
    },
    handler: async (request, reply) => {
      const { body } = request
      const model = servedModel(context, body.model)
      refuseUnsupported(body)
      if (body.max_tokens === 0 && !body.echo)
        throw invalidValue('max_tokens', 'max_tokens should be at least 1; 0 is only for echo, to score a prompt.')
      const n = body.n ?? 1
      const count = Array.isArray(body.prompt) && typeof body.prompt[0] !== 'number' ? body.prompt.length : 1
      if (count * n > options.maxChoices) {
        throw invalidValue(
          n > 1 ? 'n' : 'prompt',
          `${count} prompts times ${n} answers are ${count * n}; one request may ask for ${options.maxChoices}.`,
        )
      }
      const maxTokens = body.max_tokens ?? 16
      const params = {
        ...samplingParams(body, llm, maxTokens),
        ...(body.logprobs !== undefined && { logprobs: body.logprobs }),
        ...(body.echo && body.logprobs !== undefined && { promptLogprobs: Math.max(body.logprobs, body.prompt_logprobs ?? 0) }),
      }
      const prompts = completionPrompts(body, llm)
      for (const prompt of prompts) checkLength(llm, prompt.promptTokenIds.length, maxTokens, 'max_tokens', 'prompt')

      const form: CompletionForm = { llm, body, prompts, n, name: tokenName(body.return_tokens_as_token_ids) }
      const head = { id: `cmpl-${request.id}`, created: Math.floor(Date.now() / 1000), model }
      const scope = lifetime.begin(reply)
      if (body.stream) {
        const jobs = prompts.map(({ promptTokenIds }, i) => ({ prompt: { promptTokenIds }, promptTokenIds, offset: i * n }))
        await streamAnswers(context, reply, scope, jobs, params, requestOptions(body), new CompletionChunks(form, head))
        return reply
      }
      const asked = prompts.map(({ promptTokenIds }) => ({ promptTokenIds }))
      const results = await scope.run((signal) => llm.generate(asked, params, { ...requestOptions(body), signal }))
      return completion(form, head, results)
    },
  })
}

function refuseUnsupported(body: CompletionRequest): void {
  if (body.best_of !== undefined && body.best_of !== (body.n ?? 1)) {
    throw unsupported('best_of', 'best_of can only be the same as n: this server does not choose among answers.')
  }
  if (body.suffix) throw unsupported('suffix', 'suffix is not supported: this server only continues prompts.')
}
