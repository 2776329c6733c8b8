import { connect } from 'node:net'
import { describe, expect, it } from 'vitest'
import { eventsOf, httpRequest, rawRequest, serve, until } from './serve.ts'

const chat = { messages: [{ role: 'user', content: 'hi' }], stream: true }
const completion = { prompt: 'hi', stream: true, max_tokens: 50_000 }

describe('the form of a stream', () => {
  it('has headers that proxies leave alone, and ends with [DONE]', async () => {
    const { post } = await serve()
    const response = await post('/v1/chat/completions', chat, { 'x-request-id': 'mine-1', origin: 'http://a' })
    expect(response.status).toBe(200)
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
      'x-request-id': 'mine-1',
      connection: 'keep-alive',
    })
    expect(response.headers.has('server')).toBe(false)
    const text = await response.text()
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true)
    for (const chunk of eventsOf(text))
      expect(chunk).toMatchObject({ id: 'chatcmpl-mine-1', object: 'chat.completion.chunk', model: 'fake' })
  })

  it('escapes what would end a line, and keeps characters whole', async () => {
    const answer = 'a\nb\r\n\n"\\\u2028😀\u0000ñ'
    const { post } = await serve({ answer: () => answer })
    const text = await (await post('/v1/completions', completion)).text()
    const chunks = eventsOf(text) as { choices: { text: string }[] }[]
    expect(chunks.map((c) => c.choices[0]?.text ?? '').join('')).toBe(answer)
  })

  it('gives usage in every chunk when asked', async () => {
    const { post } = await serve({ answer: () => 'abc', tokenDelay: 2 })
    const text = await (
      await post('/v1/completions', { ...completion, stream_options: { include_usage: true, continuous_usage_stats: true } })
    ).text()
    const used = (eventsOf(text) as { usage: { completion_tokens: number } }[]).map((c) => c.usage.completion_tokens)
    expect(used).toEqual([1, 2, 3, 3])
  })

  it('a failure before the first token is an answer with a status', async () => {
    const { post } = await serve({ failAt: 0 })
    const response = await post('/v1/chat/completions', chat)
    expect(response.status).toBe(500)
    expect(response.headers.get('content-type')).toContain('application/json')
    expect(await response.json()).toMatchObject({ error: { code: 'internal_error', type: 'server_error' } })
  })

  it('a failure later is an event in the same form, then the end', async () => {
    const { post, llm } = await serve({ failAt: 3, tokenDelay: 2 })
    const text = await (await post('/v1/completions', { ...completion, prompt: ['a', 'b'] })).text()
    const events = eventsOf(text) as { error?: unknown }[]
    expect(events.filter((e) => e.error)).toEqual([
      { error: { message: expect.any(String) as string, type: 'server_error', param: null, code: 'internal_error' } },
    ])
    expect(events.at(-1)).toHaveProperty('error')
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true)
    expect(llm.running).toBe(0)
  })

  it('sends comments while the model is silent, and its head with the first', async () => {
    const { post } = await serve({ firstDelay: 250, answer: () => 'ab' }, { keepAliveInterval: 50 })
    const response = await post('/v1/completions', completion)
    const text = await response.text()
    expect(text).toMatch(/^(: keep-alive\n\n){2,5}data: /)
    expect((eventsOf(text) as { choices: { text: string }[] }[]).map((c) => c.choices[0]!.text).join('')).toBe('ab')
  })

  it('a failure after the head went out is an event', async () => {
    const { post } = await serve({ firstDelay: 150, failAt: 0 }, { keepAliveInterval: 40 })
    const response = await post('/v1/completions', completion)
    expect(response.status).toBe(200)
    expect(eventsOf(await response.text())).toMatchObject([{ error: { code: 'internal_error' } }])
  })

  it('a failure to write a token down fails that stream, not the process', async () => {
    const { post, llm } = await serve({ answer: () => 'abcdef', tokenDelay: 2 })
    const { stream } = llm
    llm.stream = async function* (prompt, params, options) {
      let i = 0
      // Log-probabilities that are none: JSON.stringify throws at the big integer.
      for await (const delta of stream.call(llm, prompt, params, options)) {
        yield i++ === 3 ? { ...delta, logprobs: [{ ...delta.logprobs![0]!, bytes: [1n as unknown as number] }] } : delta
      }
    }
    const ask = { ...chat, logprobs: true }
    const text = await (await post('/v1/chat/completions', ask)).text()
    expect(eventsOf(text).at(-1)).toMatchObject({ error: { code: 'internal_error' } })
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true)
    await until('it is aborted', () => llm.running === 0 && llm.aborted === 1)
  })

  it('takes further requests on the same connection', async () => {
    const { port } = await serve({ answer: () => 'ab' })
    const socket = rawRequest(port, '/v1/completions', completion)
    let text = ''
    socket.on('data', (data) => {
      text += data
    })
    await until('the first ends', () => text.includes('[DONE]'))
    socket.write(httpRequest('/v1/completions', completion))
    await until('the second ends', () => text.split('[DONE]').length === 3)
    expect(text.match(/HTTP\/1\.1 200/g)).toHaveLength(2)
    socket.destroy()
  })
})

describe('clients that go away', () => {
  const long = 'x'.repeat(5000)
  for (const [name, body] of [
    ['a stream', { ...completion }],
    ['a whole answer', { ...completion, stream: false }],
  ] as const) {
    it(`abort ${name} before its first token`, async () => {
      const { llm, port } = await serve({ firstDelay: 60_000 })
      const socket = rawRequest(port, '/v1/completions', body)
      await until('it runs', () => llm.running === 1)
      socket.destroy()
      await until('it is aborted', () => llm.aborted === 1 && llm.running === 0)
    })

    it(`abort ${name} in its middle`, async () => {
      const { llm, port } = await serve({ tokenDelay: 5, answer: () => long })
      const socket = rawRequest(port, '/v1/completions', body)
      socket.resume()
      await until('tokens flow', () => llm.pulled > 3)
      socket.destroy()
      await until('it is aborted', () => llm.aborted === 1 && llm.running === 0)
      const { pulled } = llm
      await new Promise((resolve) => setTimeout(resolve, 30))
      expect(llm.pulled).toBe(pulled)
    })

    it(`abort every prompt and answer of ${name}`, async () => {
      const { llm, port } = await serve({ tokenDelay: 5, answer: () => long })
      const socket = rawRequest(port, '/v1/completions', { ...body, prompt: ['a', 'b', 'c'], n: 2 })
      socket.resume()
      await until('all run', () => llm.running === 3 && llm.pulled > 12)
      socket.resetAndDestroy()
      await until('all are aborted', () => llm.aborted === 3 && llm.running === 0)
    })
  }

  it.each([true, false])('abort also what waits behind another answer of their connection (stream: %s)', async (stream) => {
    const { llm, port } = await serve({ tokenDelay: 5, answer: () => long })
    const body = { ...completion, stream }
    const socket = rawRequest(port, '/v1/completions', body)
    for (let i = 0; i < 14; i++) socket.write(httpRequest('/v1/completions', body))
    socket.resume()
    await until('all run', () => llm.running === 15)
    socket.destroy()
    await until('all are aborted', () => llm.aborted === 15 && llm.running === 0)
  })

  it('with half a request never reach the model', async () => {
    const { llm, port, post } = await serve()
    const socket = connect(port, '127.0.0.1')
    socket.write('POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{"pro')
    await new Promise((resolve) => setTimeout(resolve, 30))
    socket.destroy()
    expect((await post('/v1/completions', { prompt: 'a' })).status).toBe(200)
    expect(llm.asked).toHaveLength(1)
  })

  it('do not count as aborted when their answer was whole', async () => {
    const { llm, post } = await serve()
    await (await post('/v1/completions', completion)).text()
    await (await post('/v1/completions', { prompt: 'a' })).text()
    expect([llm.finished, llm.aborted]).toEqual([2, 0])
  })

  it('count as gone when they close their sending side, as Node has it', async () => {
    const { llm, port } = await serve({ tokenDelay: 5, answer: () => long })
    const socket = rawRequest(port, '/v1/completions', completion)
    await until('it runs', () => llm.pulled > 3)
    socket.end()
    await until('it is aborted', () => llm.aborted === 1 && llm.running === 0)
  })
})

describe('readers that do not read', () => {
  /** Resolves when nothing more is taken from the model for a while. */
  const stuck = async (llm: { pulled: number }): Promise<number> => {
    let last = -1
    let since = performance.now()
    await until('the model is asked for nothing more', () => {
      if (llm.pulled !== last) since = performance.now()
      last = llm.pulled
      return last > 0 && performance.now() - since > 100
    })
    return last
  }

  it('hold no memory and nobody else', async () => {
    // 10,000 tokens of 4 KB: 40 MB, far over what the system keeps for a socket.
    const tokens = 10_000
    const { llm, port, post } = await serve({ answer: () => 'x'.repeat(tokens), width: 4096 }, { slowReaderTimeout: 60_000 })
    const lazy = rawRequest(port, '/v1/completions', completion)
    lazy.pause()
    const taken = await stuck(llm)
    expect(taken).toBeLessThan(tokens / 2)
    const before = process.memoryUsage().arrayBuffers
    const fast = await Promise.all(
      Array.from({ length: 4 }, async () => (await (await post('/v1/completions', { ...completion, max_tokens: 300 })).text()).length),
    )
    for (const length of fast) expect(length).toBeGreaterThan(300 * 4096)
    expect(llm.running).toBe(1)
    expect(llm.pulled).toBe(taken + 4 * 300)
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(20 * 1024 * 1024)
    lazy.destroy()
    await until('it is aborted', () => llm.aborted === 1 && llm.running === 0)
  })

  it('are cut off after a while', async () => {
    const { llm, port } = await serve({ answer: () => 'x'.repeat(10_000), width: 4096 }, { slowReaderTimeout: 200 })
    const lazy = rawRequest(port, '/v1/completions', completion)
    lazy.pause()
    await until('its request is aborted', () => llm.aborted === 1 && llm.running === 0, 15_000)
    lazy.resume()
    await until('its connection is closed', () => lazy.destroyed)
  })

  it('that come back in time get everything, in order', async () => {
    const tokens = 3000
    const { llm, port } = await serve({ answer: () => '~'.repeat(tokens), width: 4096 }, { slowReaderTimeout: 20_000 })
    const socket = rawRequest(port, '/v1/completions', completion)
    socket.pause()
    expect(await stuck(llm)).toBeLessThan(tokens)
    const parts: Buffer[] = []
    socket.on('data', (data: Buffer) => parts.push(data))
    socket.resume()
    await until('it is all there', () => llm.finished === 1 && parts.at(-1)?.includes('0\r\n\r\n') === true, 15_000)
    const text = Buffer.concat(parts).toString()
    expect(text.split('~').length - 1).toBe(tokens * 4096)
    expect(text).toContain('"finish_reason":"stop"')
    expect(text).toContain('data: [DONE]')
    socket.destroy()
  })

  it('of whole answers are cut off too', async () => {
    const size = 30 * 1024 * 1024
    const { port, app } = await serve({ answer: () => 'x', width: size }, { slowReaderTimeout: 200 })
    let cutOff = false
    app.server.on('connection', (socket) => socket.on('close', () => (cutOff = true)))
    const socket = rawRequest(port, '/v1/completions', { prompt: 'a' })
    socket.pause()
    await until('the server closes the connection', () => cutOff, 10_000)
    socket.resume()
    await until('the client sees it', () => socket.destroyed)
    expect(socket.bytesRead).toBeLessThan(size)
  })
})

describe('many deltas at once', () => {
  it('leave as few chunks when the reader or the server is behind', async () => {
    const { post, llm } = await serve({ answer: () => 'abcdefgh' })
    // A model that has all its deltas ready at once.
    const { stream } = llm
    llm.stream = async function* (prompt, params, options) {
      const all = []
      for await (const delta of stream.call(llm, prompt, params, options)) all.push(delta)
      yield* all
    }
    const text = await (await post('/v1/completions', completion)).text()
    const chunks = eventsOf(text) as { choices: { text: string; finish_reason: string | null }[] }[]
    expect(chunks.map((c) => c.choices[0]!.text).join('')).toBe('abcdefgh')
    expect(chunks).toHaveLength(1)
    expect(chunks[0]!.choices[0]!.finish_reason).toBe('stop')
  })
})
