import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { invalidValue } from '../api-error.ts'
import { type ServerContext, servedModel } from '../context.ts'
import { streamAnswers } from '../delta-stream.ts'
import { checkFields } from '../fields.ts'
import { ChatChunks, type ChatForm, chatCompletion } from '../openai-chat.ts'
import { tokenName } from '../openai-logprobs.ts'
import { chatPrompt, tokenize } from '../openai-prompts.ts'
import { checkLength, requestOptions, samplingParams } from '../openai-sampling.ts'
import { eventStreamOf, refusals } from '../openapi.ts'
import {
  ChatCompletionChunkSchema,
  type ChatCompletionRequest,
  ChatCompletionRequestSchema,
  ChatCompletionSchema,
} from '../schemas/chat.ts'

export function chatCompletionRoutes(app: FastifyInstance, context: ServerContext): void {
  const { llm, options, lifetime } = context
  app.withTypeProvider<TypeBoxTypeProvider>().post('/v1/chat/completions', {
    preValidation: checkFields(ChatCompletionRequestSchema, options.unknownFields),
    schema: {
      operationId: 'createChatCompletion',
      summary: 'Answer a conversation.',
      tags: ['OpenAI'],
      body: ChatCompletionRequestSchema,
      response: {
        200: eventStreamOf('The answers.', ChatCompletionSchema, ChatCompletionChunkSchema),
        ...refusals(400, 401, 404, 413, 415, 500, 503),
      },
    },
    handler: async (request, reply) => {
      const { body } = request
      const model = servedModel(context, body.model)
      if ((body.n ?? 1) > options.maxChoices)
        throw invalidValue('n', `n is ${body.n}; one request may ask for ${options.maxChoices} answers.`)
      if (body.top_logprobs !== undefined && !body.logprobs) {
        throw invalidValue('top_logprobs', 'top_logprobs needs logprobs to be true.')
      }
      const limit = maxTokens(body)
      const params = { ...samplingParams(body, llm, limit.value), ...(body.logprobs && { logprobs: body.top_logprobs ?? 0 }) }
      const promptTokenIds = tokenize(llm, chatPrompt(body, options), 'messages')
      checkLength(llm, promptTokenIds.length, limit.value, limit.param, 'messages')

      const form: ChatForm = { body, promptTokenIds, name: tokenName(body.return_tokens_as_token_ids) }
      const head = { id: `chatcmpl-${request.id}`, created: Math.floor(Date.now() / 1000), model }
      const scope = lifetime.begin(reply)
      const prompt = { promptTokenIds }
      if (body.stream) {
        const jobs = [{ prompt, promptTokenIds, offset: 0 }]
        await streamAnswers(context, reply, scope, jobs, params, requestOptions(body), new ChatChunks(form, head))
        return reply
      }
      const [result] = await scope.run((signal) => llm.generate([prompt], params, { ...requestOptions(body), signal }))
      return chatCompletion(form, head, result!)
    },
  })
}

/** `max_completion_tokens` is the newer name; both at once must agree. */
function maxTokens(body: ChatCompletionRequest): { value: number | undefined; param: string } {
  const { max_tokens: older, max_completion_tokens: newer } = body
  const param = newer === undefined ? 'max_tokens' : 'max_completion_tokens'
  if (older !== undefined && newer !== undefined && older !== newer) {
    throw invalidValue(param, `max_tokens is ${older} and max_completion_tokens ${newer}. Give one of them.`)
  }
  const value = newer ?? older
  if (value === 0) throw invalidValue(param, `${param} should be at least 1, is 0.`)
  return { value, param }
}
