import OpenAI from 'openai'
import { describe, expect, it } from 'vitest'
import { serve, until } from './serve.ts'

const messages = [{ role: 'user' as const, content: 'hi' }]

describe('chat completions by the openai client', () => {
  it('answers whole', async () => {
    const { openai, llm } = await serve({ cachedTokens: 3 })
    const answer = await openai.chat.completions.create({ model: 'fake', messages, temperature: 0, seed: 7, stop: 'x' })
    expect(answer.object).toBe('chat.completion')
    expect(answer.id).toMatch(/^chatcmpl-\w+$/)
    expect(answer.model).toBe('fake')
    expect(answer.choices).toHaveLength(1)
    expect(answer.choices[0]).toMatchObject({
      index: 0,
      message: { role: 'assistant', content: 'Hello, world!' },
      finish_reason: 'stop',
      logprobs: null,
    })
    const prompt = 1 + 'user: hi\nassistant: '.length
    expect(answer.usage).toEqual({
      prompt_tokens: prompt,
      completion_tokens: 13,
      total_tokens: prompt + 13,
      prompt_tokens_details: { cached_tokens: 3 },
    })
    expect(llm.asked[0]).toMatchObject({ prompt: 'user: hi\nassistant: ', params: { temperature: 0, seed: 7, stop: ['x'] } })
  })

  it('answers in chunks, with usage only when asked', async () => {
    const { openai } = await serve()
    const stream = await openai.chat.completions.create({ model: 'fake', messages, stream: true, stream_options: { include_usage: true } })
    const chunks = []
    for await (const chunk of stream) chunks.push(chunk)
    expect(chunks[0]!.choices[0]!.delta).toEqual({ role: 'assistant', content: '' })
    expect(chunks.map((c) => c.choices[0]?.delta.content ?? '').join('')).toBe('Hello, world!')
    expect(chunks.map((c) => c.choices[0]?.finish_reason).filter(Boolean)).toEqual(['stop'])
    expect(new Set(chunks.map((c) => c.id)).size).toBe(1)
    expect(chunks.at(-1)!.choices).toEqual([])
    expect(chunks.at(-1)!.usage).toMatchObject({ completion_tokens: 13, prompt_tokens_details: { cached_tokens: 0 } })
    expect(chunks.slice(0, -1).every((c) => c.usage === null)).toBe(true)

    const plain = await openai.chat.completions.create({ model: 'fake', messages, stream: true })
    for await (const chunk of plain) expect(chunk).not.toHaveProperty('usage')
  })

  it('keeps n answers apart, whole and in chunks', async () => {
    const { openai } = await serve({ answer: (_, index) => ['one', 'second', '3'][index]! })
    const whole = await openai.chat.completions.create({ model: 'fake', messages, n: 3 })
    expect(whole.choices.map((c) => c.message.content)).toEqual(['one', 'second', '3'])
    expect(whole.usage!.completion_tokens).toBe(10)
    const texts = ['', '', '']
    const ends = [0, 0, 0]
    for await (const chunk of await openai.chat.completions.create({ model: 'fake', messages, n: 3, stream: true })) {
      const choice = chunk.choices[0]!
      texts[choice.index] += choice.delta.content ?? ''
      if (choice.finish_reason) ends[choice.index]!++
    }
    expect(texts).toEqual(['one', 'second', '3'])
    expect(ends).toEqual([1, 1, 1])
  })

  it('reports log-probabilities, the same whole and in chunks', async () => {
    const { openai } = await serve({ answer: () => 'añ' })
    const ask = { model: 'fake', messages, logprobs: true, top_logprobs: 2 }
    const whole = await openai.chat.completions.create(ask)
    const content = whole.choices[0]!.logprobs!.content!
    expect(content).toHaveLength(2)
    expect(content[1]).toEqual({
      token: 'ñ',
      logprob: -0.5,
      bytes: [0xc3, 0xb1],
      top_logprobs: [
        { token: 'ñ', logprob: -0.5, bytes: [0xc3, 0xb1] },
        { token: 'ò', logprob: -1, bytes: [0xc3, 0xb2] },
      ],
    })
    const streamed = []
    for await (const chunk of await openai.chat.completions.create({ ...ask, stream: true })) {
      streamed.push(...(chunk.choices[0]?.logprobs?.content ?? []))
    }
    expect(streamed).toEqual(content)
    const none = await openai.chat.completions.create({ model: 'fake', messages, logprobs: true })
    expect(none.choices[0]!.logprobs!.content![0]!.top_logprobs).toEqual([])
  })

  it('passes tools, arguments of calls as objects, parts as text, and developer as system', async () => {
    const { openai, llm } = await serve()
    const tools = [{ type: 'function' as const, function: { name: 'add', parameters: { type: 'object' } } }]
    await openai.chat.completions.create({
      model: 'fake',
      tools,
      messages: [
        { role: 'developer', content: 'be brief' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'a' },
            { type: 'text', text: 'b' },
          ],
        },
        { role: 'assistant', content: null, tool_calls: [{ id: '1', type: 'function', function: { name: 'add', arguments: '{"x": 1}' } }] },
        { role: 'tool', tool_call_id: '1', content: '2' },
      ],
    })
    expect(llm.asked[0]!.prompt).toBe(
      `tools: ${JSON.stringify(tools)}\nsystem: be brief\nuser: a\nb\nassistant: [{"id":"1","type":"function","function":{"name":"add","arguments":{"x":1}}}]\ntool: 2\nassistant: `,
    )
    await openai.chat.completions.create({ model: 'fake', tools, tool_choice: 'none', messages })
    expect(llm.asked[1]!.prompt).toBe('user: hi\nassistant: ')
  })

  it('aborts in the engine when the client aborts, streaming or not, and logs nothing as an error', async () => {
    const lines: string[] = []
    const { openai, llm } = await serve({ tokenDelay: 10, answer: () => 'x'.repeat(1000) }, { logger: logger(lines) })
    const stream = await openai.chat.completions.create({ model: 'fake', messages, stream: true })
    let seen = 0
    for await (const _ of stream) if (++seen === 3) break
    await until('the stream is aborted', () => llm.aborted === 1)
    const controller = new AbortController()
    const whole = openai.chat.completions.create({ model: 'fake', messages }, { signal: controller.signal })
    await until('it runs', () => llm.running === 1)
    controller.abort()
    await expect(whole).rejects.toBeInstanceOf(OpenAI.APIUserAbortError)
    await until('it is aborted', () => llm.aborted === 2)
    expect(llm.running).toBe(0)
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(lines.filter((line) => line.startsWith('error'))).toEqual([])
  })

  it('throws in mid-stream what fails there, after the tokens that came', async () => {
    const { openai } = await serve({ failAt: 5 })
    let text = ''
    const run = async () => {
      for await (const chunk of await openai.chat.completions.create({ model: 'fake', messages, stream: true })) {
        text += chunk.choices[0]?.delta.content ?? ''
      }
    }
    const error = await run().then(
      () => undefined,
      (e: unknown) => e,
    )
    expect(error).toBeInstanceOf(OpenAI.APIError)
    expect(error).toMatchObject({ code: 'internal_error', type: 'server_error' })
    expect((error as Error).message).not.toContain('secret')
    expect(text).toBe('Hello')
  })
})

describe('completions by the openai client', () => {
  it('takes prompts in all four forms', async () => {
    const { openai, llm } = await serve({ answer: (prompt) => `${prompt}!` })
    const texts = async (prompt: string | string[] | number[] | number[][]) =>
      (await openai.completions.create({ model: 'fake', prompt })).choices.map((c) => `${c.index}${c.text}`)
    expect(await texts('ab')).toEqual(['0ab!'])
    expect(await texts(['ab', 'c'])).toEqual(['0ab!', '1c!'])
    expect(await texts([97, 98])).toEqual(['0ab!'])
    expect(await texts([[97, 98], [99]])).toEqual(['0ab!', '1c!'])
    expect(llm.asked.every(({ params }) => params.maxTokens === 16)).toBe(true)
  })

  it('numbers choices by prompt, then answer, whole and in chunks', async () => {
    const { openai } = await serve({ answer: (prompt, index) => `${prompt}${index}` })
    const ask = { model: 'fake', prompt: ['a', 'b'], n: 2 }
    const whole = await openai.completions.create(ask)
    expect(whole.choices.map((c) => c.text)).toEqual(['a0', 'a1', 'b0', 'b1'])
    expect(whole.usage).toMatchObject({ prompt_tokens: 4, completion_tokens: 8 })
    const texts: string[] = []
    let usage: unknown
    for await (const chunk of await openai.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } })) {
      for (const c of chunk.choices) texts[c.index] = (texts[c.index] ?? '') + c.text
      usage = chunk.usage ?? usage
    }
    expect(texts).toEqual(['a0', 'a1', 'b0', 'b1'])
    expect(usage).toMatchObject({ prompt_tokens: 4, completion_tokens: 8 })
  })

  it('echoes the prompt, with its log-probabilities, the same whole and in chunks', async () => {
    const { openai } = await serve({ answer: () => 'yz' })
    const ask = { model: 'fake', prompt: 'añ', echo: true, logprobs: 1, max_tokens: 5 }
    const whole = (await openai.completions.create(ask)).choices[0]!
    expect(whole.text).toBe('añyz')
    expect(whole.logprobs).toEqual({
      tokens: ['<s>', 'a', 'ñ', 'y', 'z'],
      token_logprobs: [null, -0.5, -0.5, -0.5, -0.5],
      top_logprobs: [null, { a: -0.5 }, { ñ: -0.5 }, { y: -0.5 }, { z: -0.5 }],
      text_offset: [0, 3, 4, 5, 6],
    })
    const merged = { text: '', tokens: [] as string[], token_logprobs: [] as number[], text_offset: [] as number[] }
    for await (const chunk of await openai.completions.create({ ...ask, stream: true })) {
      const choice = chunk.choices[0]!
      merged.text += choice.text
      merged.tokens.push(...(choice.logprobs?.tokens ?? []))
      merged.token_logprobs.push(...(choice.logprobs?.token_logprobs ?? []))
      merged.text_offset.push(...(choice.logprobs?.text_offset ?? []))
    }
    const { top_logprobs: _, ...rest } = whole.logprobs!
    expect(merged).toEqual({ text: 'añyz', ...rest })
  })

  it('scores a prompt: echo with max_tokens 0 generates nothing', async () => {
    const { openai, llm } = await serve()
    const ask = { model: 'fake', prompt: 'ab', echo: true, logprobs: 0, max_tokens: 0 }
    const answer = await openai.completions.create(ask)
    expect(answer.choices[0]).toMatchObject({ text: 'ab', finish_reason: 'length', logprobs: { tokens: ['<s>', 'a', 'b'] } })
    expect(answer.usage).toMatchObject({ prompt_tokens: 3, completion_tokens: 0 })
    expect(llm.asked[0]!.params).toMatchObject({ maxTokens: 0, promptLogprobs: 0 })
    const chunks = []
    for await (const chunk of await openai.completions.create({ ...ask, stream: true })) chunks.push(chunk)
    expect(chunks).toHaveLength(1)
    expect(chunks[0]!.choices[0]).toMatchObject({ text: 'ab', finish_reason: 'length', logprobs: { tokens: ['<s>', 'a', 'b'] } })
  })
})

describe('models and errors by the openai client', () => {
  it('lists and finds models, by names with slashes too', async () => {
    const { openai } = await serve({}, { servedModelNames: ['org/model', 'alias'] })
    const list = await openai.models.list()
    expect(list.data.map((m) => m.id)).toEqual(['org/model', 'alias'])
    expect(await openai.models.retrieve('org/model')).toMatchObject({ id: 'org/model', object: 'model', root: 'fake' })
    const answer = await openai.chat.completions.create({ model: 'alias', messages })
    expect(answer.model).toBe('alias')
    await expect(openai.models.retrieve('nobody')).rejects.toBeInstanceOf(OpenAI.NotFoundError)
  })

  it('maps errors to its classes', async () => {
    const { openai, url, llm } = await serve({}, { apiKey: ['right', 'other'] })
    const wrong = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'wrong', maxRetries: 0 })
    await expect(wrong.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError)
    const other = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'other', maxRetries: 0 })
    expect((await other.models.list()).data).toHaveLength(1)
    await expect(openai.chat.completions.create({ model: 'nobody', messages })).rejects.toMatchObject({
      constructor: OpenAI.NotFoundError,
      status: 404,
      code: 'model_not_found',
      param: 'model',
    })
    await expect(openai.chat.completions.create({ model: 'right', messages, temperature: -1 })).rejects.toMatchObject({
      constructor: OpenAI.BadRequestError,
      code: 'invalid_value',
      param: 'temperature',
      type: 'invalid_request_error',
      requestID: expect.stringMatching(/^\w{32}$/) as string,
    })
    llm.dead = true
    await expect(openai.chat.completions.create({ model: 'fake', messages })).rejects.toMatchObject({
      constructor: OpenAI.InternalServerError,
      status: 503,
      code: 'engine_dead',
    })
    await expect(openai.chat.completions.create({ model: 'fake', messages, stream: true })).rejects.toMatchObject({ status: 503 })
  })
})

function logger(lines: string[]) {
  const at = (level: string) => (object: unknown, text?: string) => void lines.push(`${level} ${JSON.stringify(object)} ${text ?? ''}`)
  const self = {
    level: 'debug',
    fatal: at('error'),
    error: at('error'),
    warn: at('warn'),
    info: at('info'),
    debug: at('debug'),
    trace: at('trace'),
    silent: () => {},
  }
  return { ...self, child: () => ({ ...self, child: () => self }) } as never
}
