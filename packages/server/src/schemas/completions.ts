import { Type } from 'typebox'
import { FinishReasonSchema, Nullable, PromptLogprobsSchema, StopReasonSchema, TokenIdsSchema, UsageSchema } from './answer.ts'
import { samplingFields } from './sampling.ts'

const TokenId = Type.Integer({ minimum: 0 })

export const CompletionRequestSchema = Type.Object(
  {
    prompt: Type.Union(
      [
        Type.String(),
        Type.Array(Type.String(), { minItems: 1 }),
        Type.Array(TokenId, { minItems: 1 }),
        Type.Array(Type.Array(TokenId, { minItems: 1 }), { minItems: 1 }),
      ],
      { 'x-expected': 'a string, a list of strings, a list of token ids, or a list of lists of token ids, none of the lists empty' },
    ),
    ...samplingFields,
    max_tokens: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 2 ** 31 - 1,
        description: 'At most so many tokens are generated. Default 16. 0 only with echo.',
      }),
    ),
    logprobs: Type.Optional(
      Type.Integer({ minimum: 0, maximum: 20, description: 'Report so many of the likeliest tokens beside the chosen one.' }),
    ),
    echo: Type.Optional(Type.Boolean({ description: 'The prompt is part of text and logprobs.' })),
    add_special_tokens: Type.Optional(Type.Boolean({ description: "Begin the prompt with the tokenizer's special tokens. Default true." })),
    best_of: Type.Optional(Type.Integer({ description: 'Only the same as n.' })),
    suffix: Type.Optional(Type.String({ description: 'Only empty.' })),
    response_format: Type.Optional(Type.Object({ type: Type.String() }, { description: 'Only { "type": "text" }.' })),
  },
  { title: 'CompletionRequest', additionalProperties: false },
)
export type CompletionRequest = Type.Static<typeof CompletionRequestSchema>

export const CompletionLogprobsSchema = Type.Object(
  {
    tokens: Type.Array(Type.String()),
    token_logprobs: Type.Array(Nullable(Type.Number())),
    top_logprobs: Type.Array(Nullable(Type.Record(Type.String(), Type.Number()))),
    text_offset: Type.Array(Type.Integer({ description: 'Where the token begins in the text, in characters (code points).' })),
  },
  { title: 'CompletionLogprobs' },
)
export type CompletionLogprobs = Type.Static<typeof CompletionLogprobsSchema>

const CompletionChoiceSchema = Type.Object(
  {
    index: Type.Integer(),
    text: Type.String(),
    logprobs: Nullable(CompletionLogprobsSchema),
    finish_reason: FinishReasonSchema,
    stop_reason: StopReasonSchema,
    prompt_logprobs: Type.Optional(PromptLogprobsSchema),
    token_ids: Type.Optional(TokenIdsSchema),
    prompt_token_ids: Type.Optional(TokenIdsSchema),
  },
  { title: 'CompletionChoice' },
)
export type CompletionChoice = Type.Static<typeof CompletionChoiceSchema>

const head = {
  id: Type.String(),
  object: Type.Literal('text_completion'),
  created: Type.Integer({ description: 'Seconds since 1970.' }),
  model: Type.String(),
  choices: Type.Array(CompletionChoiceSchema),
}
export const CompletionSchema = Type.Object({ ...head, usage: UsageSchema }, { title: 'Completion' })
export type Completion = Type.Static<typeof CompletionSchema>
export const CompletionChunkSchema = Type.Object({ ...head, usage: Type.Optional(Nullable(UsageSchema)) }, { title: 'CompletionChunk' })
