import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { ApiError, invalidValue } from '../api-error.ts'
import { type ServerContext, servedModel } from '../context.ts'
import { checkFields } from '../fields.ts'
import { jsonOf, refusals } from '../openapi.ts'
import { DetokenizeRequestSchema, DetokenizeSchema } from '../schemas/tokenize.ts'

export function detokenizeRoutes(app: FastifyInstance, context: ServerContext): void {
  const { llm, options } = context
  app.withTypeProvider<TypeBoxTypeProvider>().post('/detokenize', {
    preValidation: checkFields(DetokenizeRequestSchema, options.unknownFields),
    schema: {
      operationId: 'detokenize',
      summary: 'The text of token ids.',
      tags: ['Tokens'],
      body: DetokenizeRequestSchema,
      response: { 200: jsonOf('The text.', DetokenizeSchema), ...refusals(400, 401, 404, 413, 415, 500) },
    },
    handler: async ({ body }) => {
      servedModel(context, body.model)
      if (!llm.hasTokenizer) throw new ApiError(400, 'no_tokenizer', 'This model was started without its tokenizer.')
      const outside = body.tokens.find((id) => id >= llm.info.vocabSize)
      if (outside !== undefined) throw invalidValue('tokens', `tokens has ${outside}; ids go from 0 to ${llm.info.vocabSize - 1}.`)
      return { prompt: llm.detokenize(body.tokens, { skipSpecialTokens: body.skip_special_tokens ?? false }) }
    },
  })
}
