import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { ApiError, invalidValue } from '../api-error.ts'
import { type ServerContext, servedModel } from '../context.ts'
import { checkFields } from '../fields.ts'
import { chatPrompt, tokenize } from '../openai-prompts.ts'
import { jsonOf, refusals } from '../openapi.ts'
import { TokenizeRequestSchema, TokenizeSchema } from '../schemas/tokenize.ts'

export function tokenizeRoutes(app: FastifyInstance, context: ServerContext): void {
  const { llm, options } = context
  app.withTypeProvider<TypeBoxTypeProvider>().post('/tokenize', {
    preValidation: checkFields(TokenizeRequestSchema, options.unknownFields),
    schema: {
      operationId: 'tokenize',
      summary: 'The token ids of a prompt or of a conversation.',
      tags: ['Tokens'],
      body: TokenizeRequestSchema,
      response: { 200: jsonOf('The ids.', TokenizeSchema), ...refusals(400, 401, 404, 413, 415, 500) },
    },
    handler: async ({ body }) => {
      servedModel(context, body.model)
      const { prompt, messages } = body
      if (prompt !== undefined && messages !== undefined) throw invalidValue('prompt', 'Give prompt or messages, not both.')
      if (prompt === undefined && messages === undefined) {
        throw new ApiError(400, 'missing_required_parameter', 'prompt or messages is missing.', { param: 'prompt' })
      }
      const tokens =
        messages !== undefined
          ? tokenize(llm, chatPrompt({ ...body, messages }, options), 'messages')
          : tokenize(llm, { prompt: prompt!, addSpecialTokens: body.add_special_tokens ?? true }, 'prompt')
      return {
        count: tokens.length,
        max_model_len: llm.info.maxModelLen,
        tokens: [...tokens],
        token_strs: body.return_token_strs ? tokens.map((id) => llm.tokenText(id).token) : null,
      }
    },
  })
}
