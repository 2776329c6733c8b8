import { Type } from 'typebox'
import { Nullable } from './answer.ts'
import { conversationFields } from './chat.ts'

export const TokenizeRequestSchema = Type.Object(
  {
    model: Type.Optional(Type.String()),
    prompt: Type.Optional(Type.String()),
    ...conversationFields,
    messages: Type.Optional(conversationFields.messages),
    add_special_tokens: Type.Optional(
      Type.Boolean({ description: "With prompt: begin with the tokenizer's special tokens; default true. With messages: only false." }),
    ),
    return_token_strs: Type.Optional(Type.Boolean({ description: "Report each token's own text too." })),
  },
  { title: 'TokenizeRequest', description: 'Either prompt or messages.', additionalProperties: false },
)
export type TokenizeRequest = Type.Static<typeof TokenizeRequestSchema>

export const TokenizeSchema = Type.Object(
  {
    count: Type.Integer(),
    max_model_len: Type.Integer(),
    tokens: Type.Array(Type.Integer()),
    token_strs: Nullable(Type.Array(Type.String())),
  },
  { title: 'Tokenize' },
)

export const DetokenizeRequestSchema = Type.Object(
  {
    model: Type.Optional(Type.String()),
    tokens: Type.Array(Type.Integer({ minimum: 0 })),
    skip_special_tokens: Type.Optional(Type.Boolean({ description: 'Default false.' })),
  },
  { title: 'DetokenizeRequest', additionalProperties: false },
)
export const DetokenizeSchema = Type.Object({ prompt: Type.String() }, { title: 'Detokenize' })
