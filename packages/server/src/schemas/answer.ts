import { Type } from 'typebox'

export const Nullable = <T extends import('typebox').TSchema>(type: T) => Type.Union([type, Type.Null()])

export const UsageSchema = Type.Object(
  {
    prompt_tokens: Type.Integer(),
    completion_tokens: Type.Integer(),
    total_tokens: Type.Integer(),
    prompt_tokens_details: Type.Object({ cached_tokens: Type.Integer({ description: 'Prompt tokens that the prefix cache had.' }) }),
  },
  { title: 'Usage' },
)
export type Usage = Type.Static<typeof UsageSchema>

export const ErrorSchema = Type.Object(
  {
    error: Type.Object({
      message: Type.String(),
      type: Type.String(),
      param: Nullable(Type.String({ description: 'The field at fault.' })),
      code: Nullable(Type.String()),
    }),
  },
  { title: 'Error' },
)

export const FinishReasonSchema = Nullable(
  Type.Enum(['stop', 'length', 'abort'], { description: 'stop: an end token, stop id or stop string; length: max_tokens or the context.' }),
)
export const StopReasonSchema = Nullable(
  Type.Union([Type.String(), Type.Integer()], { description: 'The stop string or stop token id that ended the output.' }),
)

/** One entry a prompt token, the first null: token id to its log-probability. */
export const PromptLogprobsSchema = Nullable(
  Type.Array(
    Nullable(
      Type.Record(
        Type.String(),
        Type.Object({ logprob: Type.Number(), rank: Nullable(Type.Integer()), decoded_token: Type.String() }, { title: 'PromptLogprob' }),
      ),
    ),
  ),
)
export type PromptLogprobs = Type.Static<typeof PromptLogprobsSchema>

export const TokenIdsSchema = Nullable(Type.Array(Type.Integer()))
