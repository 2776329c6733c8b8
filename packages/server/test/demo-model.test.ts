import { readFileSync } from 'node:fs'
import { modelPath } from '@aphrodite/demo-model'
import { type ChatMessage, LLM, type RequestOutput } from '@aphrodite/llm'
import type { FastifyInstance } from 'fastify'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createServer, type ErrorBody, listen } from '../src/index.ts'
import { eventsOf, rawRequest, until } from './serve.ts'

interface Reference {
  readonly chats: readonly {
    readonly messages: OpenAI.ChatCompletionMessageParam[]
    readonly tools: OpenAI.ChatCompletionTool[] | null
    readonly prompt_ids: number[]
    readonly greedy: number[]
    readonly text: string
  }[]
  readonly documents: readonly { readonly text: string; readonly tokens: number; readonly nll: number }[]
}

/** What Hugging Face answers, greedily, in float32. */
const reference = JSON.parse(readFileSync(`${modelPath}/reference.json`, 'utf8')) as Reference

describe('a real model over HTTP', () => {
  let llm: LLM
  let app: FastifyInstance
  let url: string
  let openai: OpenAI
  const alone: RequestOutput[] = []
  beforeAll(async () => {
    llm = await LLM.create({ model: modelPath, dtype: 'float32', kvCacheBytes: 48 * 1024 * 1024 })
    for (const { messages, tools, greedy } of reference.chats) {
      const prompt = { messages: messages as ChatMessage[], ...(tools && { tools }) }
      alone.push((await llm.generate(prompt, { temperature: 0, maxTokens: greedy.length }))[0]!)
    }
    app = createServer(llm, { servedModelNames: ['demo'], shutdownTimeout: 0 })
    url = await listen(app, { port: 0 })
    openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
  })
  afterAll(async () => {
    app?.server.closeAllConnections()
    await app?.close()
    await llm?.close()
  })

  const post = (path: string, body: object) =>
    fetch(`${url}${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
  const ask = async (path: string, body: object) => (await (await post(path, body)).json()) as never
  const chatOf = (chat: Reference['chats'][number]) => ({
    model: 'demo',
    messages: chat.messages,
    ...(chat.tools && { tools: chat.tools }),
    temperature: 0,
    max_tokens: chat.greedy.length,
  })

  it('answers the reference chats as the model does in process, all at once', async () => {
    const answers = await Promise.all(reference.chats.map((chat) => openai.chat.completions.create(chatOf(chat))))
    for (const [i, answer] of answers.entries()) {
      const { text, tokenIds, finishReason } = alone[i]!.outputs[0]!
      expect(answer.choices[0]).toMatchObject({ message: { content: text }, finish_reason: finishReason })
      expect(answer.usage).toMatchObject({ prompt_tokens: reference.chats[i]!.prompt_ids.length, completion_tokens: tokenIds.length })
    }
    // That it is the right model at all: most are Hugging Face's words. tests/ has all of them, and how near ties are judged.
    expect(answers.filter((a, i) => a.choices[0]!.message.content === reference.chats[i]!.text).length).toBeGreaterThan(12)
  })

  it('streams them as the same text, ids and usage', async () => {
    await Promise.all(
      reference.chats.map(async (chat, i) => {
        const response = await post('/v1/chat/completions', {
          ...chatOf(chat),
          stream: true,
          return_token_ids: true,
          stream_options: { include_usage: true },
        })
        const chunks = eventsOf(await response.text()) as {
          choices: { delta: { content?: string }; token_ids?: number[]; finish_reason: string | null }[]
          usage: { completion_tokens: number } | null
        }[]
        const choices = chunks.flatMap((c) => c.choices)
        const { text, tokenIds, finishReason } = alone[i]!.outputs[0]!
        expect(choices.map((c) => c.delta.content ?? '').join('')).toBe(text)
        expect(choices.flatMap((c) => c.token_ids ?? [])).toEqual(tokenIds)
        expect(choices.map((c) => c.finish_reason).filter((r) => r !== null)).toEqual([finishReason])
        expect(chunks.at(-1)!.usage!.completion_tokens).toBe(tokenIds.length)
      }),
    )
  })

  it('tokenizes as Hugging Face does, and back', async () => {
    for (const { messages, tools, prompt_ids } of reference.chats) {
      expect(await ask('/tokenize', { messages, ...(tools && { tools }) })).toMatchObject({
        tokens: prompt_ids,
        count: prompt_ids.length,
        max_model_len: 2048,
      })
    }
    const { text } = reference.documents[0]!
    const { tokens, token_strs } = (await ask('/tokenize', { prompt: text, add_special_tokens: false, return_token_strs: true })) as {
      tokens: number[]
      token_strs: string[]
    }
    expect(token_strs.join('')).toBe(text)
    expect(await ask('/detokenize', { tokens })).toEqual({ prompt: text })
  })

  it('scores documents by echo, as the reference does', async () => {
    for (const { text, tokens, nll } of reference.documents.slice(0, 8)) {
      const { choices, usage } = await openai.completions.create({
        model: 'demo',
        prompt: text,
        echo: true,
        logprobs: 1,
        max_tokens: 0,
        ...{ add_special_tokens: false },
      })
      const { token_logprobs, text_offset } = choices[0]!.logprobs!
      expect(choices[0]!.text).toBe(text)
      expect(token_logprobs![0]).toBeNull()
      expect(token_logprobs!.length).toBe(tokens + 1)
      expect(text_offset![0]).toBe(0)
      const own = -token_logprobs!.reduce<number>((sum, p) => sum + (p ?? 0), 0)
      expect(Math.abs(own - nll) / nll).toBeLessThan(0.005)
      expect(usage!.completion_tokens).toBe(0)
    }
  })

  it('reports log-probabilities that belong to the answer, whole as in chunks', async () => {
    const chat = { ...chatOf(reference.chats[0]!), logprobs: true, top_logprobs: 3 }
    const whole = (await openai.chat.completions.create(chat)).choices[0]!.logprobs!.content!
    const streamed: typeof whole = []
    for await (const chunk of await openai.chat.completions.create({ ...chat, stream: true })) {
      streamed.push(...(chunk.choices[0]?.logprobs?.content ?? []))
    }
    expect(streamed.map((t) => t.token)).toEqual(whole.map((t) => t.token))
    for (const [i, token] of whole.entries()) {
      // Greedy: the chosen one is the likeliest.
      expect(token.top_logprobs[0]).toEqual({ token: token.token, logprob: token.logprob, bytes: token.bytes })
      expect(token.top_logprobs).toHaveLength(3)
      expect(Buffer.from(token.bytes!).toString()).toBe(token.token)
      expect(streamed[i]!.logprob).toBeCloseTo(token.logprob, 4)
    }
    const text = whole.map((t) => t.token).join('')
    expect(text.startsWith('31 + 65 = 96.')).toBe(true)
  })

  it('stops where it is told', async () => {
    const chat = chatOf(reference.chats[0]!) // 31 + 65 = 96.
    const choice = async (more: object) => ((await ask('/v1/chat/completions', { ...chat, ...more })) as { choices: object[] }).choices[0]
    const said = (content: string, finish_reason: string, stop_reason: string | number | null) => ({
      message: { content },
      finish_reason,
      stop_reason,
    })
    expect(await choice({ stop: [' ='] })).toMatchObject(said('31 + 65', 'stop', ' ='))
    expect(await choice({ stop: ' =', include_stop_str_in_output: true })).toMatchObject(said('31 + 65 =', 'stop', ' ='))
    expect(await choice({ max_tokens: 3 })).toMatchObject({ finish_reason: 'length', stop_reason: null })
    const plus = reference.chats[0]!.greedy[2]!
    expect(await choice({ stop_token_ids: [plus], return_token_ids: true })).toMatchObject({
      token_ids: reference.chats[0]!.greedy.slice(0, 3),
      finish_reason: 'stop',
      stop_reason: plus,
    })
    expect(await choice({ ignore_eos: true, max_tokens: 40 })).toMatchObject({ finish_reason: 'length' })
    const banned = (await choice({ logit_bias: { [plus]: -100 } })) as { message: { content: string } }
    expect(banned.message.content).not.toContain('+ 65')
  })

  it('samples the same with the same seed, whatever else runs, and n answers that differ', async () => {
    const story = { model: 'demo', prompt: 'Once upon a time', temperature: 1.2, max_tokens: 24, seed: 5, n: 4 }
    const texts = async () => (await openai.completions.create(story)).choices.map((c) => c.text)
    const alone = await texts()
    expect(new Set(alone).size).toBeGreaterThan(1)
    const crowd = await Promise.all([texts(), texts(), openai.completions.create({ ...story, seed: 6 })])
    expect(crowd[0]).toEqual(alone)
    expect(crowd[1]).toEqual(alone)
    expect(crowd[2].choices.map((c) => c.text)).not.toEqual(alone)
  })

  it('says how much of a prompt was cached, and keeps salts apart', async () => {
    const prompt = reference.documents
      .map((d) => d.text)
      .join('\n')
      .slice(0, 1500)
    const cached = async (cache_salt: string) =>
      (await openai.completions.create({ model: 'demo', prompt, max_tokens: 1, ...{ cache_salt } })).usage!.prompt_tokens_details!
        .cached_tokens!
    expect(await cached('mine')).toBe(0)
    expect(await cached('mine')).toBeGreaterThan(100)
    expect(await cached('yours')).toBe(0)
  })

  it('ends requests in the engine when their clients go', async () => {
    const { port } = new URL(url)
    const idle = async () => {
      const { running, waiting } = await llm.stats()
      return running + waiting
    }
    const long = { prompt: ['Once upon a time', 'There was a dog'], max_tokens: 1900, ignore_eos: true, n: 2 }
    for (const stream of [true, false]) {
      const socket = rawRequest(Number(port), '/v1/completions', { ...long, stream })
      socket.resume()
      let seen = 0
      for (let i = 0; i < 500 && seen === 0; i++) seen = await idle()
      expect(seen).toBeGreaterThan(0)
      socket.destroy()
      let left = -1
      await until('the engine is idle', () => {
        void idle().then((n) => {
          left = n
        })
        return left === 0
      })
    }
    expect(await ask('/v1/chat/completions', chatOf(reference.chats[0]!))).toMatchObject({
      choices: [{ message: { content: reference.chats[0]!.text } }],
    })
  })

  it('refuses what cannot be, and goes on', async () => {
    const tell = async (path: string, body: object) => {
      const response = await post(path, body)
      return { status: response.status, ...((await response.json()) as ErrorBody).error }
    }
    const long = Array<number>(2048).fill(5)
    expect(await tell('/v1/completions', { prompt: long })).toMatchObject({ status: 400, code: 'context_length_exceeded', param: 'prompt' })
    expect(await tell('/v1/completions', { prompt: long.slice(0, 2000), max_tokens: 49 })).toMatchObject({
      status: 400,
      code: 'context_length_exceeded',
      param: 'max_tokens',
    })
    expect(await tell('/v1/completions', { prompt: 'word '.repeat(500_000) })).toMatchObject({
      status: 400,
      code: 'context_length_exceeded',
    })
    expect(await tell('/v1/completions', { prompt: [2048] })).toMatchObject({ status: 400, code: 'invalid_prompt', param: 'prompt' })
    expect(await tell('/v1/completions', { prompt: '', add_special_tokens: false })).toMatchObject({
      status: 400,
      code: 'invalid_prompt',
      param: 'prompt',
    })
    expect(await tell('/v1/completions', { prompt: 'a', n: 1e9 })).toMatchObject({ status: 400, param: 'n' })
    expect(
      await tell('/v1/chat/completions', { messages: [{ role: 'user', content: 'a' }], chat_template_kwargs: { bos_token: 5 } }),
    ).not.toMatchObject({ status: 500 })
    const fits = await openai.completions.create({ model: 'demo', prompt: long.slice(0, 2000), max_tokens: 48, ...{ ignore_eos: true } })
    expect(fits.usage).toMatchObject({ prompt_tokens: 2000, completion_tokens: 48 })
    expect((await fetch(`${url}/health`)).status).toBe(200)
  })
})
