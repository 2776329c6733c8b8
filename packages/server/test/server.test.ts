import { once } from 'node:events'
import { createServer as createTcpServer } from 'node:net'
import { describe, expect, it } from 'vitest'
import { createServer, listen, type ServerOptions } from '../src/index.ts'
import { FakeModel } from './fake-model.ts'
import { httpRequest, rawRequest, serve, until } from './serve.ts'

describe('tokens', () => {
  it('tokenizes prompts and conversations, and back', async () => {
    const { post } = await serve()
    const ask = async (path: string, body: object) => (await (await post(path, body)).json()) as unknown
    expect(await ask('/tokenize', { model: 'fake', prompt: 'añ' })).toEqual({
      count: 3,
      max_model_len: 100_000,
      tokens: [0, 97, 241],
      token_strs: null,
    })
    expect(await ask('/tokenize', { prompt: 'a', add_special_tokens: false, return_token_strs: true })).toMatchObject({
      tokens: [97],
      token_strs: ['a'],
    })
    const messages = [{ role: 'user', content: 'x' }]
    const { tokens } = (await ask('/tokenize', { messages })) as { tokens: number[] }
    expect(await ask('/detokenize', { tokens })).toEqual({ prompt: '<s>user: x\nassistant: ' })
    expect(await ask('/detokenize', { tokens, skip_special_tokens: true })).toEqual({ prompt: 'user: x\nassistant: ' })
    expect(await ask('/detokenize', { tokens: [] })).toEqual({ prompt: '' })
  })
})

describe('health and version', () => {
  it('is 200 while the engine answers, 503 when it is dead or says nothing', async () => {
    const { url, llm } = await serve({}, { healthTimeout: 100, apiKey: 'k' })
    const health = async () => {
      const response = await fetch(`${url}/health`)
      return [response.status, await response.json()]
    }
    expect(await health()).toEqual([200, { status: 'ok', device: 'cpu' }])
    llm.dead = true
    expect(await health()).toEqual([
      503,
      {
        error: {
          message: expect.stringMatching(/^The engine has stopped\./) as string,
          type: 'server_error',
          param: null,
          code: 'engine_dead',
        },
      },
    ])
    llm.dead = false
    llm.hangStats = true
    expect(await health()).toMatchObject([503, { error: { code: 'engine_unresponsive' } }])
    llm.stats = async () => {
      throw new Error('no such thread')
    }
    // The first question still hangs, and nobody asks a second.
    expect(await health()).toMatchObject([503, { error: { code: 'engine_unresponsive' } }])
    expect(await (await fetch(`${url}/version`)).json()).toEqual({ version: expect.stringMatching(/^\d+\.\d+\.\d+/) as string })
  })
})

describe('keys and origins', () => {
  it('asks for a key before the body is read, everywhere but at the public places', async () => {
    const { url, post, llm } = await serve({}, { apiKey: ['one', 'ключ'] })
    for (const headers of [
      {},
      { authorization: 'Bearer two' },
      { authorization: 'one' },
      { authorization: 'Bearer ' },
      { authorization: 'Basic one' },
    ]) {
      const response = await post('/v1/completions', '{broken', headers as Record<string, string>)
      expect(response.status).toBe(401)
      expect(response.headers.get('www-authenticate')).toBe('Bearer')
      expect(await response.json()).toMatchObject({ error: { code: 'invalid_api_key', type: 'invalid_request_error' } })
    }
    for (const path of ['/v1/models', '/v1/models/fake']) expect((await fetch(`${url}${path}`)).status).toBe(401)
    for (const path of ['/tokenize', '/detokenize', '/v1/chat/completions']) expect((await post(path, {})).status).toBe(401)
    for (const path of ['/health', '/version', '/openapi.json']) expect((await fetch(`${url}${path}`)).status).toBe(200)
    expect((await fetch(`${url}/nothing`)).status).toBe(404)
    expect(llm.asked).toEqual([])
    expect((await post('/v1/completions', { prompt: 'a' }, { authorization: 'bearer one' })).status).toBe(200)
  })

  it('lets pages of the named origins in, streams too, and answers preflights without a key', async () => {
    const { url, post } = await serve({}, { corsOrigins: ['https://a.example'], apiKey: 'k' })
    const preflight = (origin: string) =>
      fetch(`${url}/v1/chat/completions`, {
        method: 'OPTIONS',
        headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization,x-stainless-os' },
      })
    const good = await preflight('https://a.example')
    expect(good.status).toBe(204)
    expect(Object.fromEntries(good.headers)).toMatchObject({
      'access-control-allow-origin': 'https://a.example',
      'access-control-allow-methods': 'GET, POST',
      'access-control-allow-headers': 'authorization,x-stainless-os',
      vary: 'Origin',
    })
    const bad = await preflight('https://b.example')
    expect(bad.headers.has('access-control-allow-origin')).toBe(false)
    const headers = { origin: 'https://a.example', authorization: 'Bearer k' }
    for (const stream of [false, true]) {
      const answer = await post('/v1/completions', { prompt: 'a', stream }, headers)
      expect(answer.status).toBe(200)
      expect(answer.headers.get('access-control-allow-origin')).toBe('https://a.example')
      await answer.text()
    }
    const refused = await post('/v1/completions', { prompt: 'a' }, { origin: 'https://a.example' })
    expect(refused.status).toBe(401)
    expect(refused.headers.get('access-control-allow-origin')).toBe('https://a.example')
    const every = await serve({}, { corsOrigins: ['*'] })
    expect((await fetch(`${every.url}/version`, { headers: { origin: 'x' } })).headers.get('access-control-allow-origin')).toBe('*')
  })

  it('gives every answer an id, the client’s where it is harmless, and says nothing of what serves', async () => {
    const { url } = await serve()
    const id = async (given?: string) => {
      const response = await fetch(`${url}/version`, given === undefined ? {} : { headers: { 'x-request-id': given } })
      expect(response.headers.has('server')).toBe(false)
      expect(response.headers.has('x-powered-by')).toBe(false)
      return response.headers.get('x-request-id')
    }
    expect(await id('abc-1.2:3')).toBe('abc-1.2:3')
    for (const bad of [undefined, '', 'a b', '"', 'x'.repeat(200)]) expect(await id(bad)).toMatch(/^[0-9a-f]{32}$/)
    expect(await id()).not.toBe(await id())
  })
})

describe('the log', () => {
  const recorder = () => {
    const lines: { level: string; fields: Record<string, unknown>; text: string }[] = []
    const at = (level: string) => (fields: Record<string, unknown>, text: string) => void lines.push({ level, fields, text })
    const log = { level: 'trace', silent: () => {}, child: () => log } as Record<string, unknown>
    for (const level of ['fatal', 'error', 'warn', 'info', 'debug', 'trace']) log[level] = at(level)
    return { lines, logger: log as unknown as NonNullable<ServerOptions['logger']> }
  }

  it('has a line a request when asked, and the cause of what the server got wrong', async () => {
    const { lines, logger } = recorder()
    const { post, port, llm } = await serve({ failAt: 2, tokenDelay: 2 }, { logger, logRequests: true })
    await (await post('/v1/completions?key=secret', { prompt: 'a', stream: true })).text()
    expect((await post('/v1/completions', { prompt: 'a' })).status).toBe(500)
    expect((await post('/v1/completions', { prompt: 5 })).status).toBe(400)
    await until('three requests are logged', () => lines.filter((l) => l.text === 'request').length === 3)
    expect(
      lines.filter((l) => l.text === 'request').map((l) => [l.level, l.fields['method'], l.fields['path'], l.fields['status']]),
    ).toEqual([
      ['info', 'POST', '/v1/completions', 200],
      ['info', 'POST', '/v1/completions', 500],
      ['info', 'POST', '/v1/completions', 400],
    ])
    const errors = lines.filter((l) => l.level === 'error')
    expect(errors).toHaveLength(2)
    for (const { fields } of errors) expect((fields['err'] as Error).message).toContain('/secret/of/the/server')
    lines.length = 0
    llm.script.failAt = 1000
    const socket = rawRequest(port, '/v1/completions', { prompt: 'a' })
    await until('it runs', () => llm.running === 1)
    socket.destroy()
    await until('its end is logged', () => lines.some((l) => l.text === 'request'))
    expect(lines.find((l) => l.text === 'request')!.fields['status']).toBe(499)
    expect(lines.map((l) => l.level)).not.toContain('error')
  })

  it('is off unless asked', async () => {
    const { lines, logger } = recorder()
    const { post } = await serve({}, { logger })
    await post('/v1/completions', { prompt: 'a' })
    expect(lines.filter((l) => l.fields !== undefined && l.text !== undefined)).toEqual([])
  })
})

describe('a connection that is kept', () => {
  it('gathers nothing over many requests', async () => {
    const { app, port, llm } = await serve({ answer: () => 'ab' })
    const sockets: import('node:net').Socket[] = []
    app.server.on('connection', (socket) => sockets.push(socket))
    const socket = rawRequest(port, '/v1/completions', { prompt: 'a' })
    let text = ''
    socket.on('data', (data) => {
      text += data
    })
    const count = () => sockets[0]!.eventNames().reduce((sum, name) => sum + sockets[0]!.listenerCount(name), 0)
    let early = 0
    for (let i = 1; i <= 300; i++) {
      await until('it is answered', () => llm.finished === i && text.endsWith(i % 2 ? '}' : '[DONE]\n\n\r\n0\r\n\r\n'))
      if (i === 10) early = count()
      text = ''
      socket.write(httpRequest('/v1/completions', { prompt: 'a', stream: i % 2 === 1 }))
    }
    expect(sockets).toHaveLength(1)
    expect(count()).toBeLessThanOrEqual(early)
    socket.destroy()
  })
})

describe('shutting down', () => {
  it('lets running requests end, takes no new ones, and keeps no connection', async () => {
    const { app, port, llm, url } = await serve({ tokenDelay: 15, answer: () => 'abcdefghij' }, { shutdownTimeout: 10_000 })
    const open: ReturnType<typeof rawRequest>[] = []
    const texts: string[] = []
    for (const stream of [true, false]) {
      const socket = rawRequest(port, '/v1/completions', { prompt: 'a', stream })
      const i = open.push(socket) - 1
      texts.push('')
      socket.on('data', (data) => {
        texts[i] += data
      })
    }
    const idle = await fetch(`${url}/version`)
    expect(idle.status).toBe(200)
    await until('both run', () => llm.running === 2)
    const closed = Promise.all(open.map((socket) => once(socket, 'close')))
    const started = performance.now()
    await app.close()
    await closed
    expect(performance.now() - started).toBeLessThan(3000)
    expect(texts[0]).toContain('[DONE]')
    expect(texts[1]).toContain('"text":"abcdefghij"')
    expect([llm.finished, llm.aborted]).toEqual([2, 0])
    await expect(fetch(`${url}/version`)).rejects.toThrow()
  })

  it('aborts what still runs at the deadline, and tells it why', async () => {
    const { app, llm, post, port } = await serve({ tokenDelay: 10, answer: () => 'x'.repeat(100_000) }, { shutdownTimeout: 100 })
    const stream = post('/v1/completions', { prompt: 'a', stream: true, max_tokens: 90_000 }).then((r) => r.text())
    const whole = post('/v1/completions', { prompt: 'a', max_tokens: 90_000 })
    const kept = rawRequest(port, '/v1/completions', { prompt: 'a', max_tokens: 90_000 })
    kept.resume()
    await until('all run', () => llm.running === 3)
    await app.close()
    expect([llm.running, llm.aborted]).toEqual([0, 3])
    expect(await stream).toContain('"code":"shutting_down"')
    const response = await whole
    expect(response.status).toBe(503)
    expect(response.headers.get('connection')).toBe('close')
    expect(await response.json()).toMatchObject({ error: { code: 'shutting_down', type: 'server_error' } })
  })

  it('refuses what comes in on a connection that is still open', async () => {
    const { app, llm, port } = await serve({ firstDelay: 300 }, { shutdownTimeout: 5000 })
    const socket = rawRequest(port, '/v1/completions', { prompt: 'a' })
    await until('it runs', () => llm.running === 1)
    const late = rawRequest(port, '/v1/completions', { prompt: 'b' }, 'expect: 100-continue\r\n')
    late.destroy()
    let text = ''
    socket.on('data', (data) => {
      text += data
    })
    const closing = app.close()
    socket.write('GET /version HTTP/1.1\r\nhost: x\r\n\r\n')
    await closing
    await until('it is answered', () => text.includes('"text"'))
    expect(llm.finished).toBe(1)
  })

  it('does not wait for a reader who has stopped', async () => {
    const { app, llm, port } = await serve({ answer: () => 'x'.repeat(50_000), width: 4096 }, { shutdownTimeout: 50 })
    const socket = rawRequest(port, '/v1/completions', { prompt: 'a', stream: true, max_tokens: 50_000 })
    socket.pause()
    await until('it runs', () => llm.running === 1)
    await new Promise((resolve) => setTimeout(resolve, 200))
    const started = performance.now()
    await app.close()
    expect(performance.now() - started).toBeLessThan(3000)
    await until('it is aborted', () => llm.running === 0 && llm.aborted === 1)
    socket.destroy()
  })
})

describe('options and addresses', () => {
  const bad: [ServerOptions, RegExp][] = [
    [{ apikey: 'x' } as ServerOptions, /no option "apikey"\. Did you mean "apiKey"\?/],
    [{ bodyLimit: -1 }, /^bodyLimit should be a whole number from 1024 to 2147483647, is -1/],
    [{ unknownFields: 'drop' as 'error' }, /unknownFields should be "error" or "ignore"/],
    [{ servedModelNames: [] }, /at least one name/],
    [{ corsOrigins: '*' as unknown as string[] }, /corsOrigins should be a list of strings/],
  ]
  it.each(bad)('refuses %o', (options, message) => {
    expect(() => createServer(new FakeModel(), options)).toThrow(message)
    expect(() => createServer(new FakeModel(), options)).toThrow(expect.objectContaining({ code: 'BAD_SERVER_OPTION' }))
  })

  it('never repeats a key', () => {
    expect(() => createServer(new FakeModel(), { apiKey: ['secret', ''] })).toThrow(/^(?!.*secret).*apiKey should be/)
  })

  it('names a port in use and an address that is not here', async () => {
    const other = createTcpServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    const { port } = other.address() as { port: number }
    const app = createServer(new FakeModel())
    await expect(listen(app, { port })).rejects.toMatchObject({
      code: 'PORT_IN_USE',
      message: expect.stringContaining(String(port)) as string,
    })
    await app.close()
    other.close()
    const far = createServer(new FakeModel())
    await expect(listen(far, { host: '203.0.113.1', port: 0 })).rejects.toMatchObject({ code: 'CANNOT_LISTEN' })
    await far.close()
    const high = createServer(new FakeModel())
    await expect(listen(high, { port: 70_000 })).rejects.toMatchObject({ code: 'CANNOT_LISTEN' })
    await high.close()
  })
})
