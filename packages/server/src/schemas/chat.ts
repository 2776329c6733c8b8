import { Type } from 'typebox'
import { FinishReasonSchema, Nullable, PromptLogprobsSchema, StopReasonSchema, TokenIdsSchema, UsageSchema } from './answer.ts'
import { samplingFields } from './sampling.ts'

const ContentPartSchema = Type.Object({ type: Type.String(), text: Type.Optional(Type.String()) }, { title: 'ContentPart' })

export const ChatMessageSchema = Type.Object(
  {
    role: Type.Enum(['system', 'developer', 'user', 'assistant', 'tool']),
    content: Type.Optional(
      Type.Union([Type.String(), Type.Array(ContentPartSchema), Type.Null()], {
        description: 'Text, or parts of type "text", which are joined by line breaks.',
        'x-expected': 'a string, a list of parts { "type": "text", "text": "…" }, or null',
      }),
    ),
    name: Type.Optional(Type.String()),
    tool_calls: Type.Optional(
      Type.Array(
        Type.Object(
          {
            id: Type.Optional(Type.String()),
            type: Type.Optional(Type.String()),
            function: Type.Object({ name: Type.String(), arguments: Type.Unknown({ description: 'JSON text, or the object itself.' }) }),
          },
          { title: 'ToolCall' },
        ),
      ),
    ),
    tool_call_id: Type.Optional(Type.String()),
  },
  { title: 'ChatMessage' },
)
export type ChatMessageInput = Type.Static<typeof ChatMessageSchema>

export const ToolSchema = Type.Object(
  {
    type: Type.Literal('function'),
    function: Type.Object({
      name: Type.String({ minLength: 1 }),
      description: Type.Optional(Type.String()),
      parameters: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
    }),
  },
  { title: 'Tool' },
)

/** What a conversation is rendered from; /tokenize has the same. */
export const conversationFields = {
  messages: Type.Array(ChatMessageSchema, { minItems: 1 }),
  tools: Type.Optional(Type.Array(ToolSchema, { description: "Given to the chat template. Calls come back as the model's own text." })),
  add_generation_prompt: Type.Optional(
    Type.Boolean({ description: "End the prompt with the beginning of the assistant's turn. Default true." }),
  ),
  continue_final_message: Type.Optional(
    Type.Boolean({ description: 'Leave the last message open so that the answer continues it. Needs add_generation_prompt false.' }),
  ),
  add_special_tokens: Type.Optional(Type.Boolean({ description: 'Only false: the chat template writes them.' })),
  chat_template: Type.Optional(Type.String({ description: 'A Jinja template instead of the model’s own, where the server allows it.' })),
  chat_template_kwargs: Type.Optional(
    Type.Record(Type.String(), Type.Unknown(), { description: 'Further variables of the chat template, such as enable_thinking.' }),
  ),
}

export const ChatCompletionRequestSchema = Type.Object(
  {
    ...conversationFields,
    ...samplingFields,
    max_completion_tokens: Type.Optional(
      Type.Integer({ minimum: 0, maximum: 2 ** 31 - 1, description: 'The newer name of max_tokens. Default: until the context is full.' }),
    ),
    logprobs: Type.Optional(Type.Boolean()),
    top_logprobs: Type.Optional(
      Type.Integer({ minimum: 0, maximum: 20, description: 'Report so many of the likeliest tokens at each position. Needs logprobs.' }),
    ),
    response_format: Type.Optional(Type.Object({ type: Type.String() }, { description: 'Only { "type": "text" }.' })),
    tool_choice: Type.Optional(
      Type.Union([Type.String(), Type.Object({ type: Type.String() })], {
        description: 'Only "auto", or "none", which leaves the tools out of the prompt.',
        'x-expected': '"auto" or "none"',
      }),
    ),
    parallel_tool_calls: Type.Optional(Type.Boolean({ description: 'Accepted; has no effect.' })),
    metadata: Type.Optional(Type.Record(Type.String(), Type.Unknown(), { description: 'Accepted; has no effect.' })),
    store: Type.Optional(Type.Boolean({ description: 'Accepted; has no effect: nothing is kept.' })),
    service_tier: Type.Optional(Type.String({ description: 'Accepted; has no effect.' })),
    safety_identifier: Type.Optional(Type.String({ description: 'Accepted; has no effect.' })),
    prompt_cache_key: Type.Optional(Type.String({ description: 'Accepted; has no effect: every prefix is cached. See cache_salt.' })),
    prompt_cache_retention: Type.Optional(Type.String({ description: 'Accepted; has no effect.' })),
  },
  { title: 'ChatCompletionRequest', additionalProperties: false },
)
export type ChatCompletionRequest = Type.Static<typeof ChatCompletionRequestSchema>

const token = { token: Type.String(), logprob: Type.Number(), bytes: Type.Array(Type.Integer()) }
export const ChatLogprobsSchema = Type.Object(
  { content: Type.Array(Type.Object({ ...token, top_logprobs: Type.Array(Type.Object(token)) }, { title: 'ChatTokenLogprob' })) },
  { title: 'ChatLogprobs' },
)
export type ChatLogprobs = Type.Static<typeof ChatLogprobsSchema>

const choiceHead = {
  index: Type.Integer(),
  logprobs: Nullable(ChatLogprobsSchema),
  finish_reason: FinishReasonSchema,
  stop_reason: Type.Optional(StopReasonSchema),
  token_ids: Type.Optional(TokenIdsSchema),
}
const ChatChoiceSchema = Type.Object(
  { ...choiceHead, message: Type.Object({ role: Type.Literal('assistant'), content: Type.String(), refusal: Type.Null() }) },
  { title: 'ChatChoice' },
)
export type ChatChoice = Type.Static<typeof ChatChoiceSchema>
const ChatChunkChoiceSchema = Type.Object(
  {
    ...choiceHead,
    delta: Type.Object({ role: Type.Optional(Type.Literal('assistant')), content: Type.Optional(Type.String()) }),
  },
  { title: 'ChatChunkChoice' },
)

const head = { id: Type.String(), created: Type.Integer({ description: 'Seconds since 1970.' }), model: Type.String() }
export const ChatCompletionSchema = Type.Object(
  {
    ...head,
    object: Type.Literal('chat.completion'),
    choices: Type.Array(ChatChoiceSchema),
    usage: UsageSchema,
    prompt_logprobs: Type.Optional(PromptLogprobsSchema),
    prompt_token_ids: Type.Optional(TokenIdsSchema),
  },
  { title: 'ChatCompletion' },
)
export type ChatCompletion = Type.Static<typeof ChatCompletionSchema>
export const ChatCompletionChunkSchema = Type.Object(
  {
    ...head,
    object: Type.Literal('chat.completion.chunk'),
    choices: Type.Array(ChatChunkChoiceSchema),
    usage: Type.Optional(Nullable(UsageSchema)),
    prompt_token_ids: Type.Optional(TokenIdsSchema),
  },
  { title: 'ChatCompletionChunk' },
)
