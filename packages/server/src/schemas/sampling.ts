import { Type } from 'typebox'

const number = (minimum: number, maximum: number, description: string) => Type.Optional(Type.Number({ minimum, maximum, description }))
const above = (exclusiveMinimum: number, maximum: number, description: string) =>
  Type.Optional(Type.Number({ exclusiveMinimum, maximum, description }))
const whole = (minimum: number, maximum: number, description: string) => Type.Optional(Type.Integer({ minimum, maximum, description }))
const flag = (description: string) => Type.Optional(Type.Boolean({ description }))
const COUNT = 2 ** 31 - 1

/** Fields that both completion endpoints have. `null` is the same as leaving a field out. */
export const samplingFields = {
  model: Type.Optional(Type.String({ description: 'A name from /v1/models; the served model when left out.' })),
  n: whole(1, 64, 'How many answers to each prompt.'),
  max_tokens: whole(0, COUNT, 'At most so many tokens are generated.'),
  min_tokens: whole(0, COUNT, 'No end token and no stop token before so many tokens.'),
  temperature: number(0, 100, '0 takes the most likely token; otherwise logits are divided by it.'),
  top_p: above(0, 1, 'Only the most likely tokens that together reach this probability.'),
  top_k: whole(-1, COUNT, 'Only the k most likely tokens; 0 or -1: all.'),
  min_p: number(0, 1, 'Only tokens at least this fraction as likely as the most likely one.'),
  repetition_penalty: above(0, 100, 'Divides the logits of tokens already in prompt or output; 1: off.'),
  presence_penalty: number(-2, 2, 'Taken from the logit of a token that the output has.'),
  frequency_penalty: number(-2, 2, 'Taken from the logit of a token as often as the output has it.'),
  seed: Type.Optional(
    Type.Integer({
      minimum: Number.MIN_SAFE_INTEGER,
      maximum: Number.MAX_SAFE_INTEGER,
      description: 'Same seed, same prompt, same parameters: same tokens.',
    }),
  ),
  logit_bias: Type.Optional(
    Type.Record(Type.String(), Type.Number({ minimum: -100, maximum: 100 }), { description: 'Token id to what is added to its logit.' }),
  ),
  stop: Type.Optional(
    Type.Union([Type.String({ maxLength: 1024 }), Type.Array(Type.String({ maxLength: 1024 }), { maxItems: 64 })], {
      description: 'Text that ends the output. Not part of it unless include_stop_str_in_output.',
      'x-expected': 'a string or a list of at most 64 strings of at most 1,024 characters',
    }),
  ),
  stop_token_ids: Type.Optional(
    Type.Array(Type.Integer({ minimum: 0 }), {
      maxItems: 1024,
      description: "Ids that end the output, beside the model's own end tokens.",
    }),
  ),
  include_stop_str_in_output: flag('Keep the stop string in the text.'),
  ignore_eos: flag("The model's end tokens do not end the output."),
  skip_special_tokens: flag('Leave special tokens out of the text. Default true.'),
  prompt_logprobs: whole(0, 20, 'Report so many of the likeliest tokens at every position of the prompt. Not with stream.'),
  stream: flag('Answer with server-sent events as tokens come.'),
  stream_options: Type.Optional(
    Type.Object(
      {
        include_usage: flag('A last chunk with the usage of the request.'),
        continuous_usage_stats: flag('The usage so far in every chunk.'),
      },
      { additionalProperties: false },
    ),
  ),
  cache_salt: Type.Optional(
    Type.String({ minLength: 1, maxLength: 1024, description: 'Requests with different salts share no cached prefix.' }),
  ),
  priority: whole(-COUNT, COUNT, 'Smaller goes first. Default 0.'),
  return_token_ids: flag('Report the ids of prompt and output.'),
  return_tokens_as_token_ids: flag('Write tokens in logprobs as "token_id:ID", which tells tokens of equal text apart.'),
  user: Type.Optional(Type.String({ description: 'Accepted; has no effect.' })),
}
