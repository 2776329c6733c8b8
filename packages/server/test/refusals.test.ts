import { once } from 'node:events'
import { connect } from 'node:net'
import { describe, expect, it } from 'vitest'
import type { ErrorBody } from '../src/index.ts'
import { serve } from './serve.ts'

const chat = { model: 'fake', messages: [{ role: 'user', content: 'hi' }] }
const completion = { model: 'fake', prompt: 'hi' }

describe('requests that are refused', () => {
  const cases: [string, string, unknown, number, string, string | null, RegExp][] = [
    ['broken JSON', '/v1/completions', '{"prompt": "a', 400, 'invalid_json', null, /not JSON/],
    ['an empty body', '/v1/completions', '', 400, 'invalid_json', null, /empty/],
    ['no object', '/v1/completions', '[1]', 400, 'invalid_type', null, /JSON object/],
    ['null', '/v1/completions', 'null', 400, 'invalid_type', null, /JSON object/],
    ['a poisoned prototype', '/v1/completions', '{"prompt":"a","__proto__":{"n":2}}', 400, 'invalid_json', null, /JSON/],
    ['no prompt', '/v1/completions', { model: 'fake' }, 400, 'missing_required_parameter', 'prompt', /^prompt is missing/],
    ['a null prompt', '/v1/completions', { prompt: null }, 400, 'missing_required_parameter', 'prompt', /^prompt is missing/],
    ['an empty list of prompts', '/v1/completions', { prompt: [] }, 400, 'invalid_value', 'prompt', /a list of strings.*is an empty list/],
    ['a mixed prompt', '/v1/completions', { prompt: ['a', 1] }, 400, 'invalid_value', 'prompt', /^prompt should be a string, a list/],
    ['a prompt of half ids', '/v1/completions', { prompt: [1.5] }, 400, 'invalid_value', 'prompt', /^prompt should be/],
    ['a negative id', '/v1/completions', { prompt: [-1] }, 400, 'invalid_value', 'prompt', /^prompt should be/],
    ['an id out of range', '/v1/completions', { prompt: [5, 1000] }, 400, 'invalid_prompt', 'prompt', /1000 is outside/],
    ['a huge id', '/v1/completions', { prompt: [2 ** 52] }, 400, 'invalid_prompt', 'prompt', /outside/],
    [
      'a temperature of text',
      '/v1/completions',
      { ...completion, temperature: 'hot' },
      400,
      'invalid_type',
      'temperature',
      /^temperature should be a number, is "hot"\.$/,
    ],
    [
      'a temperature below 0',
      '/v1/completions',
      { ...completion, temperature: -1 },
      400,
      'invalid_value',
      'temperature',
      /^temperature should be at least 0, is -1\.$/,
    ],
    ['an infinite number', '/v1/completions', '{"prompt":"a","temperature":1e999}', 400, 'invalid_type', 'temperature', /temperature/],
    ['n of 10^9', '/v1/completions', { ...completion, n: 1e9 }, 400, 'invalid_value', 'n', /^n should be at most 64, is 1000000000\.$/],
    ['n of 0', '/v1/chat/completions', { ...chat, n: 0 }, 400, 'invalid_value', 'n', /at least 1/],
    ['n of half', '/v1/chat/completions', { ...chat, n: 1.5 }, 400, 'invalid_type', 'n', /^n should be a whole number, is 1\.5/],
    [
      'more answers than allowed',
      '/v1/completions',
      { prompt: Array(100).fill('a'), n: 50 },
      400,
      'invalid_value',
      'n',
      /5000; one request may ask for 1024/,
    ],
    ['more prompts than allowed', '/v1/completions', { prompt: Array(2000).fill('a') }, 400, 'invalid_value', 'prompt', /2000/],
    ['max_tokens 0', '/v1/completions', { ...completion, max_tokens: 0 }, 400, 'invalid_value', 'max_tokens', /echo/],
    ['max_tokens 0 in a chat', '/v1/chat/completions', { ...chat, max_tokens: 0 }, 400, 'invalid_value', 'max_tokens', /at least 1/],
    [
      'two limits',
      '/v1/chat/completions',
      { ...chat, max_tokens: 1, max_completion_tokens: 2 },
      400,
      'invalid_value',
      'max_completion_tokens',
      /Give one/,
    ],
    [
      'min_tokens above max_tokens',
      '/v1/completions',
      { ...completion, max_tokens: 3, min_tokens: 4 },
      400,
      'invalid_value',
      'min_tokens',
      /more than max_tokens/,
    ],
    ['a prompt too long', '/v1/completions', { prompt: 'a'.repeat(200) }, 400, 'context_length_exceeded', 'prompt', /201 tokens/],
    [
      'a conversation too long',
      '/v1/chat/completions',
      { messages: [{ role: 'user', content: 'a'.repeat(200) }] },
      400,
      'context_length_exceeded',
      'messages',
      /tokens/,
    ],
    [
      'an answer too long',
      '/v1/completions',
      { ...completion, max_tokens: 98 },
      400,
      'context_length_exceeded',
      'max_tokens',
      /room for 100 tokens; 3 tokens of prompt and 98 of answer are 101/,
    ],
    ['an unknown model', '/v1/completions', { ...completion, model: 'gpt' }, 404, 'model_not_found', 'model', /"gpt".*"fake"/],
    [
      'a misspelt field',
      '/v1/completions',
      { ...completion, temprature: 0 },
      400,
      'unknown_parameter',
      'temprature',
      /no field "temprature"\. Did you mean "temperature"\?/,
    ],
    [
      'a field not supported',
      '/v1/chat/completions',
      { ...chat, guided_json: {} },
      400,
      'unsupported_value',
      'guided_json',
      /not supported yet/,
    ],
    [
      'a response format',
      '/v1/chat/completions',
      { ...chat, response_format: { type: 'json_object' } },
      400,
      'unsupported_value',
      'response_format',
      /"json_object" is not supported yet/,
    ],
    [
      'a forced tool',
      '/v1/chat/completions',
      { ...chat, tool_choice: { type: 'function', function: { name: 'f' } } },
      400,
      'unsupported_value',
      'tool_choice',
      /auto/,
    ],
    ['a required tool', '/v1/chat/completions', { ...chat, tool_choice: 'required' }, 400, 'unsupported_value', 'tool_choice', /auto/],
    ['best_of', '/v1/completions', { ...completion, best_of: 3 }, 400, 'unsupported_value', 'best_of', /same as n/],
    ['a suffix', '/v1/completions', { ...completion, suffix: 'x' }, 400, 'unsupported_value', 'suffix', /not supported/],
    [
      'prompt_logprobs in a stream',
      '/v1/completions',
      { ...completion, stream: true, prompt_logprobs: 1 },
      400,
      'unsupported_value',
      'prompt_logprobs',
      /stream/,
    ],
    [
      'stream_options without stream',
      '/v1/completions',
      { ...completion, stream_options: {} },
      400,
      'invalid_value',
      'stream_options',
      /stream/,
    ],
    [
      'an unknown stream option',
      '/v1/completions',
      { ...completion, stream: true, stream_options: { usage: true } },
      400,
      'unknown_parameter',
      'stream_options',
      /no field stream_options\.usage/,
    ],
    ['logprobs of a chat as a number', '/v1/chat/completions', { ...chat, logprobs: 5 }, 400, 'invalid_type', 'logprobs', /true or false/],
    ['too many logprobs', '/v1/completions', { ...completion, logprobs: 21 }, 400, 'invalid_value', 'logprobs', /at most 20/],
    ['top_logprobs alone', '/v1/chat/completions', { ...chat, top_logprobs: 2 }, 400, 'invalid_value', 'top_logprobs', /needs logprobs/],
    ['an empty stop string', '/v1/completions', { ...completion, stop: ['a', ''] }, 400, 'invalid_value', 'stop', /empty string/],
    [
      'too many stop strings',
      '/v1/completions',
      { ...completion, stop: Array(65).fill('a') },
      400,
      'invalid_value',
      'stop',
      /at most 64 strings/,
    ],
    [
      'a stop id out of range',
      '/v1/completions',
      { ...completion, stop_token_ids: [1, 4000] },
      400,
      'invalid_value',
      'stop_token_ids',
      /4000; ids go from 0 to 999/,
    ],
    ['a bias of no id', '/v1/completions', { ...completion, logit_bias: { a: 1 } }, 400, 'invalid_value', 'logit_bias', /"a"/],
    [
      'a bias of an id out of range',
      '/v1/completions',
      { ...completion, logit_bias: { 1000: 1 } },
      400,
      'invalid_value',
      'logit_bias',
      /"1000".*0 to 999/,
    ],
    [
      'a bias too large',
      '/v1/completions',
      { ...completion, logit_bias: { 5: 101 } },
      400,
      'invalid_value',
      'logit_bias',
      /^logit_bias\.5 should be at most 100, is 101/,
    ],
    ['no messages', '/v1/chat/completions', { model: 'fake' }, 400, 'missing_required_parameter', 'messages', /messages is missing/],
    ['an empty conversation', '/v1/chat/completions', { messages: [] }, 400, 'invalid_value', 'messages', /at least 1 item/],
    [
      'an unknown role',
      '/v1/chat/completions',
      { messages: [{ role: 'usr', content: 'a' }] },
      400,
      'invalid_value',
      'messages',
      /^messages\[0\]\.role should be one of "system".*is "usr"/,
    ],
    [
      'content of a number',
      '/v1/chat/completions',
      { messages: [{ role: 'user', content: 5 }] },
      400,
      'invalid_value',
      'messages',
      /^messages\[0\]\.content should be a string, a list of parts/,
    ],
    [
      'an image',
      '/v1/chat/completions',
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] },
      400,
      'unsupported_value',
      'messages',
      /content\[0\] is of type "image_url"; this server takes only text/,
    ],
    [
      'a message that the template refuses',
      '/v1/chat/completions',
      { messages: [{ role: 'tool', content: 'x' }] },
      400,
      'invalid_prompt',
      'messages',
      /tool_call_id/,
    ],
    [
      'arguments that are no JSON',
      '/v1/chat/completions',
      { messages: [{ role: 'assistant', tool_calls: [{ function: { name: 'f', arguments: '{' } }] }] },
      400,
      'invalid_value',
      'messages',
      /messages\[0\]\.tool_calls\[0\]\.function\.arguments is not JSON/,
    ],
    [
      'a template in the request',
      '/v1/chat/completions',
      { ...chat, chat_template: '{{ 1 }}' },
      400,
      'unsupported_value',
      'chat_template',
      /does not run chat templates/,
    ],
    [
      'variables that are fields',
      '/v1/chat/completions',
      { ...chat, chat_template_kwargs: { messages: [] } },
      400,
      'invalid_value',
      'chat_template_kwargs',
      /messages/,
    ],
    [
      'continuing with a new turn',
      '/v1/chat/completions',
      { ...chat, continue_final_message: true },
      400,
      'invalid_value',
      'continue_final_message',
      /add_generation_prompt/,
    ],
    ['a tokenize request of nothing', '/tokenize', {}, 400, 'missing_required_parameter', 'prompt', /prompt or messages is missing/],
    ['a tokenize request of both', '/tokenize', { prompt: 'a', messages: chat.messages }, 400, 'invalid_value', 'prompt', /not both/],
    ['ids out of range to detokenize', '/detokenize', { tokens: [1, 1000] }, 400, 'invalid_value', 'tokens', /1000; ids go from 0 to 999/],
  ]
  it.each(cases)('%s', async (_, path, body, status, code, param, message) => {
    const { post, llm } = await serve({ maxModelLen: 100 })
    const response = await post(path, body)
    const { error } = (await response.json()) as ErrorBody
    expect(error).toEqual({ message: expect.stringMatching(message) as string, type: 'invalid_request_error', param, code })
    expect(response.status).toBe(status)
    expect(response.headers.get('content-type')).toContain('application/json')
    expect(response.headers.get('x-request-id')).toBeTruthy()
    expect(llm.asked).toEqual([])
  })

  it('ignores unknown fields where told to, and names them', async () => {
    const { post } = await serve({}, { unknownFields: 'ignore' })
    const response = await post('/v1/completions', { ...completion, 'fö\r\no': 1, bar: 2, guided_regex: null })
    expect(response.status).toBe(200)
    expect(response.headers.get('x-ignored-fields')).toBe('f%C3%B6%0D%0Ao, bar')
    expect((await post('/v1/completions', { ...completion, guided_regex: 'a' })).status).toBe(400)
  })

  it('other content types, paths and methods', async () => {
    const { url } = await serve()
    const tell = async (path: string, init?: RequestInit) => {
      const response = await fetch(`${url}${path}`, init)
      return { status: response.status, allow: response.headers.get('allow'), ...((await response.json()) as ErrorBody).error }
    }
    const form = { method: 'POST', body: '{"prompt":"a"}', headers: { 'content-type': 'application/x-www-form-urlencoded' } }
    expect(await tell('/v1/completions', form)).toMatchObject({ status: 415, code: 'unsupported_content_type' })
    expect(await tell('/v1/completions', { ...form, headers: { 'content-type': 'text/plain' } })).toMatchObject({ status: 415 })
    expect(await tell('/v1/completions', { method: 'POST' })).toMatchObject({ status: 400, type: 'invalid_request_error' })
    expect(await tell('/v1/nothing')).toMatchObject({
      status: 404,
      code: 'not_found',
      message: expect.stringContaining('/v1/nothing') as string,
    })
    expect(await tell('/v1/completions')).toMatchObject({ status: 405, allow: 'POST', code: 'method_not_allowed' })
    expect(await tell('/v1/models/x/y', { method: 'DELETE' })).toMatchObject({ status: 405, allow: 'GET, HEAD' })
    expect(await tell('/health', { method: 'POST', body: '{}', headers: { 'content-type': 'application/json' } })).toMatchObject({
      status: 405,
    })
    expect(await tell('/%zz')).toMatchObject({ status: 400, type: 'invalid_request_error' })
    expect(await tell(`/${'x'.repeat(3000)}`)).toMatchObject({ status: 404 })
  })

  it('a body over the limit, declared or not, without taking it', async () => {
    const { port, url, llm } = await serve({}, { bodyLimit: 100_000 })
    const fits = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ prompt: 'a'.repeat(80_000), max_tokens: 1 }),
    })
    expect(fits.status).toBe(200)
    for (const chunked of [false, true]) {
      const before = process.memoryUsage().arrayBuffers + process.memoryUsage().heapUsed
      const { head, sent } = await upload(port, 100 * 1024 * 1024, chunked)
      expect(head).toMatch(/^HTTP\/1\.1 413 /)
      expect(head.toLowerCase()).toContain('connection: close')
      expect(head).toContain('"code":"body_too_large"')
      expect(head).toContain('100,000 bytes')
      expect(process.memoryUsage().arrayBuffers + process.memoryUsage().heapUsed - before).toBeLessThan(40 * 1024 * 1024)
      expect(sent).toBeLessThan(100 * 1024 * 1024)
    }
    expect(llm.asked).toHaveLength(1)
  })

  it('a body over the limit that asks before it is sent is never asked for', async () => {
    const { port } = await serve({ answer: () => 'ab' }, { bodyLimit: 100_000 })
    const ask = async (length: number, body: string) => {
      const socket = connect(port, '127.0.0.1')
      let text = ''
      socket.on('data', (data) => {
        text += data
        if (text.endsWith('100 Continue\r\n\r\n')) socket.write(body)
      })
      socket.write(
        `POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: ${length}\r\n\r\n`,
      )
      await once(socket, 'close')
      return text.split('\r\n').filter((line) => line.startsWith('HTTP/'))
    }
    expect(await ask(14, '{"prompt":"a"}')).toEqual(['HTTP/1.1 100 Continue', 'HTTP/1.1 200 OK'])
    expect(await ask(200_000, '')).toEqual(['HTTP/1.1 413 Payload Too Large'])
  })

  it('what is not HTTP', async () => {
    const { port } = await serve()
    const answer = (bytes: string) =>
      new Promise<string>((resolve, reject) => {
        let text = ''
        const socket = connect(port, '127.0.0.1', () => socket.write(bytes))
        socket.on('data', (data) => {
          text += data
        })
        socket.on('close', () => resolve(text))
        socket.on('error', reject)
      })
    const garbage = await answer('\x16\x03\x01 hello\r\n\r\n')
    expect(garbage).toMatch(/^HTTP\/1\.1 400 /)
    expect(JSON.parse(garbage.split('\r\n\r\n')[1]!)).toMatchObject({ error: { type: 'invalid_request_error' } })
    expect(await answer(`GET / HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(100_000)}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 431 /)
  })
})

/** Sends up to `size` bytes of a body until the server answers or hangs up; tells what it answered and how much it took. */
function upload(port: number, size: number, chunked: boolean): Promise<{ head: string; sent: number }> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    let head = ''
    let sent = 0
    const piece = Buffer.alloc(64 * 1024, 'a')
    const framed = chunked ? Buffer.concat([Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from('\r\n')]) : piece
    const length = chunked ? 'transfer-encoding: chunked' : `content-length: ${size}`
    socket.write(`POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n${length}\r\n\r\n`)
    const pump = () => {
      while (sent < size && !socket.destroyed && socket.writable) {
        sent += piece.length
        if (!socket.write(framed)) return
      }
    }
    socket.on('drain', pump)
    socket.on('data', (data) => {
      head += data
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve({ head, sent }))
    pump()
  })
}
