import { describe, expect, it } from 'vitest'
import { serve } from './serve.ts'

const messages = [{ role: 'user', content: 'hi' }]

const given = {
  n: 2,
  max_tokens: 9,
  min_tokens: 3,
  temperature: 0.5,
  top_p: 0.9,
  top_k: 40,
  min_p: 0.05,
  repetition_penalty: 1.1,
  presence_penalty: 0.2,
  frequency_penalty: -0.3,
  seed: 42,
  logit_bias: { 5: -100, 7: 1.5 },
  stop: ['a', 'b'],
  stop_token_ids: [3, 4],
  include_stop_str_in_output: true,
  ignore_eos: true,
  skip_special_tokens: false,
  prompt_logprobs: 2,
  cache_salt: 'salt',
  priority: 5,
}
const understood = {
  n: 2,
  maxTokens: 9,
  minTokens: 3,
  temperature: 0.5,
  topP: 0.9,
  topK: 40,
  minP: 0.05,
  repetitionPenalty: 1.1,
  presencePenalty: 0.2,
  frequencyPenalty: -0.3,
  seed: 42,
  logitBias: { 5: -100, 7: 1.5 },
  stop: ['a', 'b'],
  stopTokenIds: [3, 4],
  includeStopStrInOutput: true,
  ignoreEos: true,
  skipSpecialTokens: false,
  promptLogprobs: 2,
}

describe('what the model is asked', () => {
  for (const [path, prompt, logprobs] of [
    ['/v1/completions', { prompt: 'hi' }, { logprobs: 4 }],
    ['/v1/chat/completions', { messages }, { logprobs: true, top_logprobs: 4 }],
  ] as const) {
    it(`is every field of ${path}`, async () => {
      const { post, llm } = await serve()
      const response = await post(path, { ...prompt, ...given, ...logprobs })
      expect(response.status).toBe(200)
      const { params, options } = llm.asked[0]!
      expect(params).toEqual({ ...understood, logprobs: 4 })
      expect(options).toMatchObject({ cacheSalt: 'salt', priority: -5 })
    })

    it(`is nothing that ${path} was not told, null being the same`, async () => {
      const { post, llm } = await serve()
      await post(path, prompt)
      await post(path, { ...prompt, temperature: null, stop: null, seed: null, logprobs: null, stream_options: null, guided_json: null })
      const wanted = path === '/v1/completions' ? { maxTokens: 16 } : {}
      for (const { params, options } of llm.asked) {
        expect(params).toEqual(wanted)
        expect(Object.keys(options)).toEqual(['signal'])
      }
      expect(llm.asked).toHaveLength(2)
    })

    it(`is the same when ${path} streams`, async () => {
      const { post, llm } = await serve()
      const { prompt_logprobs: _, ...rest } = given
      await (await post(path, { ...prompt, ...rest, ...logprobs, stream: true })).text()
      const { promptLogprobs: __, ...wanted } = understood
      expect(llm.asked[0]!.params).toEqual({ ...wanted, logprobs: 4 })
      expect(llm.asked[0]!.options).toMatchObject({ cacheSalt: 'salt', priority: -5 })
    })
  }

  it('takes every whole number for a seed, and top_k -1 for all', async () => {
    const { post, llm } = await serve()
    const seeds = [-1, 2 ** 32 + 3, Number.MAX_SAFE_INTEGER]
    for (const seed of seeds) await post('/v1/completions', { prompt: 'a', seed, top_k: -1 })
    expect(llm.asked.map(({ params }) => params.seed)).toEqual(seeds)
    expect(llm.asked[0]!.params.topK).toBe(0)
  })

  it('takes max_completion_tokens, special tokens, template variables and unfinished messages', async () => {
    const { post, llm } = await serve()
    await post('/v1/chat/completions', { messages, max_completion_tokens: 7, chat_template_kwargs: { enable_thinking: false } })
    expect(llm.asked[0]).toMatchObject({ prompt: 'kwargs: {"enable_thinking":false}\nuser: hi\nassistant: ', params: { maxTokens: 7 } })
    await post('/v1/chat/completions', { messages, add_generation_prompt: false, continue_final_message: true })
    expect(llm.asked[1]!.prompt).toBe('user: hi')
    const ids = async (body: object) =>
      ((await (await post('/v1/completions', body)).json()) as { usage: { prompt_tokens: number } }).usage.prompt_tokens
    expect(await ids({ prompt: 'ab' })).toBe(3)
    expect(await ids({ prompt: 'ab', add_special_tokens: false })).toBe(2)
  })
})

describe('what the answer has when asked', () => {
  it('prompt_logprobs by token id', async () => {
    const { post } = await serve()
    const a = { logprob: -0.5, rank: 1, decoded_token: 'a' }
    const completion = await (await post('/v1/completions', { prompt: 'a', prompt_logprobs: 2 })).json()
    const wanted = [null, { 97: a, 98: { logprob: -1, rank: 2, decoded_token: 'b' } }]
    expect(completion).toMatchObject({ choices: [{ prompt_logprobs: wanted }] })
    const chat = (await (await post('/v1/chat/completions', { messages, prompt_logprobs: 0 })).json()) as { prompt_logprobs: unknown[] }
    expect(chat.prompt_logprobs[1]).toEqual({ 117: { logprob: -0.5, rank: 1, decoded_token: 'u' } })
  })

  it('token ids, whole and in chunks', async () => {
    const { post } = await serve({ answer: () => 'ab' })
    const completion = { prompt: [5, 6], return_token_ids: true }
    expect(await (await post('/v1/completions', completion)).json()).toMatchObject({
      choices: [{ token_ids: [97, 98], prompt_token_ids: [5, 6] }],
    })
    const chat = { messages, return_token_ids: true }
    const whole = (await (await post('/v1/chat/completions', chat)).json()) as { prompt_token_ids: number[] }
    expect(whole).toMatchObject({ choices: [{ token_ids: [97, 98] }] })
    expect(whole.prompt_token_ids).toHaveLength(21)
    for (const [path, body] of [
      ['/v1/completions', completion],
      ['/v1/chat/completions', chat],
    ] as const) {
      const text = await (await post(path, { ...body, stream: true })).text()
      expect([...text.matchAll(/"token_ids":\[([\d,]+)\]/g)].map((m) => m[1]).join()).toBe('97,98')
      expect(text.match(/"prompt_token_ids"/g)).toHaveLength(1)
    }
  })

  it('tokens by id, so that equal texts stay apart', async () => {
    const { post } = await serve({ answer: () => 'a' })
    const body = { prompt: 'x', logprobs: 2, return_tokens_as_token_ids: true }
    expect(await (await post('/v1/completions', body)).json()).toMatchObject({
      choices: [{ logprobs: { tokens: ['token_id:97'], top_logprobs: [{ 'token_id:97': -0.5, 'token_id:98': -1 }] } }],
    })
  })

  it('log-probabilities that JSON can hold', async () => {
    const { post, llm } = await serve({ answer: () => 'a' })
    const { stream } = llm
    llm.stream = async function* (prompt, params, options) {
      for await (const delta of stream.call(llm, prompt, params, options)) {
        yield { ...delta, logprobs: delta.logprobs!.map((t) => ({ ...t, logprob: Number.NEGATIVE_INFINITY })) }
      }
    }
    expect(await (await post('/v1/completions', { prompt: 'x', logprobs: 0 })).json()).toMatchObject({
      choices: [{ logprobs: { token_logprobs: [-9999], top_logprobs: [{ a: -9999 }] } }],
    })
  })
})
