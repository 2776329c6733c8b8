import type { LanguageModel, RequestOptions, SamplingParams } from '@aphrodite/llm'
import { ApiError, invalidValue, unsupported } from './api-error.ts'
import type { ChatCompletionRequest } from './schemas/chat.ts'
import type { CompletionRequest } from './schemas/completions.ts'

type Body = CompletionRequest | ChatCompletionRequest
type Writable<T> = { -readonly [K in keyof T]?: T[K] }

/** The parameters that both endpoints have, where the request gives them; the model's own defaults fill in the rest. */
export function samplingParams(body: Body, llm: LanguageModel, maxTokens: number | undefined): Partial<SamplingParams> {
  const params: Writable<SamplingParams> = {}
  const set = <K extends keyof SamplingParams>(key: K, value: SamplingParams[K] | undefined) => {
    if (value !== undefined) params[key] = value
  }
  set('n', body.n)
  set('maxTokens', maxTokens)
  set('minTokens', body.min_tokens)
  set('temperature', body.temperature)
  set('topP', body.top_p)
  set('topK', body.top_k === -1 ? 0 : body.top_k)
  set('minP', body.min_p)
  set('repetitionPenalty', body.repetition_penalty)
  set('presencePenalty', body.presence_penalty)
  set('frequencyPenalty', body.frequency_penalty)
  set('seed', body.seed)
  set('logitBias', logitBias(body.logit_bias, llm.info.vocabSize))
  set('stop', typeof body.stop === 'string' ? [body.stop] : body.stop)
  set('stopTokenIds', body.stop_token_ids)
  set('includeStopStrInOutput', body.include_stop_str_in_output)
  set('ignoreEos', body.ignore_eos)
  set('skipSpecialTokens', body.skip_special_tokens)
  set('promptLogprobs', body.prompt_logprobs)

  if (params.stop?.includes('')) throw invalidValue('stop', 'stop has an empty string, which would end every answer at once.')
  const outside = params.stopTokenIds?.find((id) => id >= llm.info.vocabSize)
  if (outside !== undefined)
    throw invalidValue('stop_token_ids', `stop_token_ids has ${outside}; ids go from 0 to ${llm.info.vocabSize - 1}.`)
  if (body.min_tokens !== undefined && maxTokens !== undefined && body.min_tokens > maxTokens) {
    throw invalidValue('min_tokens', `min_tokens is ${body.min_tokens}, more than max_tokens, ${maxTokens}.`)
  }
  if (body.prompt_logprobs !== undefined && body.stream) {
    throw unsupported('prompt_logprobs', 'prompt_logprobs cannot be had with stream. Leave out one of them.')
  }
  if (body.stream_options !== undefined && !body.stream) {
    throw invalidValue('stream_options', 'stream_options needs stream to be true.')
  }
  if (body.response_format !== undefined && body.response_format.type !== 'text') {
    throw unsupported(
      'response_format',
      `response_format ${JSON.stringify(body.response_format.type.slice(0, 60))} is not supported yet, only "text".`,
    )
  }
  return params
}

/** `priority` as vLLM has it, smaller first; the engine's is greater first. */
export const requestOptions = (body: Body): RequestOptions => ({
  ...(body.cache_salt !== undefined && { cacheSalt: body.cache_salt }),
  ...(body.priority !== undefined && { priority: 0 - body.priority }),
})

function logitBias(bias: Readonly<Record<string, number>> | undefined, vocabSize: number): Record<number, number> | undefined {
  if (bias === undefined) return undefined
  const checked: Record<number, number> = {}
  for (const [key, value] of Object.entries(bias)) {
    const id = /^\d{1,10}$/.test(key) ? Number(key) : -1
    if (id < 0 || id >= vocabSize) {
      throw invalidValue(
        'logit_bias',
        `logit_bias has ${JSON.stringify(key.slice(0, 60))}; its keys are token ids from 0 to ${vocabSize - 1}.`,
      )
    }
    checked[id] = value
  }
  return checked
}

/** Refuses what cannot fit; so far the prompt was only checked to fit by itself. An answer needs one token at least. */
export function checkLength(llm: LanguageModel, promptTokens: number, maxTokens: number | undefined, param: string, prompt: string): void {
  const { maxModelLen } = llm.info
  const answer = Math.max(maxTokens ?? 1, 1)
  if (promptTokens + answer <= maxModelLen) return
  const advice = answer === 1 ? 'Shorten the prompt.' : `Shorten the prompt or lower ${param}.`
  throw new ApiError(
    400,
    'context_length_exceeded',
    `This model has room for ${maxModelLen} tokens; ${promptTokens} tokens of prompt and ${answer} of answer are ${promptTokens + answer}. ${advice}`,
    { param: promptTokens >= maxModelLen ? prompt : param },
  )
}
