import { Compile } from 'typebox/compile'
import { describe, expect, it } from 'vitest'
import type { ErrorBody } from '../src/index.ts'
import { deeperThan } from '../src/json-body.ts'
import { ChatCompletionRequestSchema } from '../src/schemas/chat.ts'
import { CompletionRequestSchema } from '../src/schemas/completions.ts'
import { DetokenizeRequestSchema, TokenizeRequestSchema } from '../src/schemas/tokenize.ts'
import { firstProblem } from '../src/validation.ts'
import { serve } from './serve.ts'

/** A generator of numbers in [0, 1) that always gives the same ones. */
function mulberry(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

const sampling = {
  n: 2,
  max_tokens: 5,
  temperature: 0.5,
  top_p: 0.5,
  top_k: 3,
  stop: ['a'],
  logit_bias: { 5: 1 },
  stop_token_ids: [1],
  seed: 1,
  stream: true,
  stream_options: { include_usage: true },
  cache_salt: 's',
  priority: 1,
}
const messages = [
  { role: 'user', content: [{ type: 'text', text: 'a' }] },
  { role: 'assistant', content: null, tool_calls: [{ function: { name: 'f', arguments: '{}' } }] },
]
const bodies = [
  { path: '/v1/completions', schema: CompletionRequestSchema, body: { prompt: ['a', 'b'], echo: true, logprobs: 2, ...sampling } },
  { path: '/v1/completions', schema: CompletionRequestSchema, body: { prompt: [[1, 2], [3]], prompt_logprobs: 1 } },
  {
    path: '/v1/chat/completions',
    schema: ChatCompletionRequestSchema,
    body: {
      messages,
      tools: [{ type: 'function', function: { name: 'f', parameters: {} } }],
      tool_choice: 'auto',
      logprobs: true,
      ...sampling,
    },
  },
  { path: '/tokenize', schema: TokenizeRequestSchema, body: { messages, add_generation_prompt: false } },
  { path: '/detokenize', schema: DetokenizeRequestSchema, body: { tokens: [1, 2, 3] } },
] as const

const strange = [
  null,
  true,
  false,
  0,
  -1,
  1.5,
  1e9,
  2 ** 53,
  -1e308,
  '',
  'a',
  'x'.repeat(2000),
  '\ud800',
  [],
  [[]],
  [1, 'a'],
  [null],
  {},
  { a: {} },
  { type: 'text' },
]

/** Replaces, removes or adds something somewhere in a copy of a value. */
function mutate(value: unknown, random: () => number): unknown {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!
  if (typeof value !== 'object' || value === null || random() < 0.1) return structuredClone(pick(strange))
  const copy = structuredClone(value) as Record<string, unknown>
  const keys = Object.keys(copy)
  const known = keys.length > 0 && (Array.isArray(copy) || random() < 0.95)
  const key = known
    ? pick(keys)
    : Array.isArray(copy)
      ? '0'
      : pick(['extra', '__x', 'constructor', 'toString', 'length', 'prompt', 'model'])
  if (random() < 0.1) {
    if (Array.isArray(copy)) copy.splice(Number(key), 1)
    else delete copy[key]
  } else copy[key] = mutate(copy[key], random)
  return copy
}

describe('bodies that nobody would send', () => {
  it('are judged alike by the compiled check and by the search for what to say', () => {
    const random = mulberry(1)
    let refused = 0
    for (const { schema, body } of bodies) {
      const check = Compile(schema)
      for (let i = 0; i < 4000; i++) {
        let mutated: unknown = body
        for (let k = random() * 3; k >= 0; k--) mutated = mutate(mutated, random)
        const problem = firstProblem(schema, mutated)
        if (check.Check(mutated) !== (problem === undefined))
          expect.fail(`${JSON.stringify(mutated)} ${problem?.message ?? 'has no problem'}`)
        if (!problem) continue
        refused++
        expect(problem.message.length).toBeLessThan(400)
        expect(problem.message).toMatch(/^\S.*\.$/)
      }
    }
    expect(refused).toBeGreaterThan(5000)
  })

  it('never fail the server: what is refused is the request, in OpenAI’s form', async () => {
    const { app, llm } = await serve({ answer: () => 'ab' })
    const random = mulberry(2)
    const statuses = new Map<number, number>()
    for (const { path, body } of bodies) {
      for (let i = 0; i < 400; i++) {
        let mutated: unknown = body
        for (let k = random() * 3; k >= 0; k--) mutated = mutate(mutated, random)
        const response = await app.inject({
          method: 'POST',
          url: path,
          headers: { 'content-type': 'application/json' },
          payload: JSON.stringify(mutated),
        })
        const { statusCode } = response
        statuses.set(statusCode, (statuses.get(statusCode) ?? 0) + 1)
        if (![200, 400, 404].includes(statusCode)) expect.fail(`${statusCode} for ${JSON.stringify(mutated)}: ${response.body}`)
        if (statusCode === 200) continue
        const { error } = JSON.parse(response.body) as ErrorBody
        expect(error).toMatchObject({
          message: expect.any(String) as string,
          type: 'invalid_request_error',
          code: expect.any(String) as string,
        })
      }
    }
    expect(llm.running).toBe(0)
    expect(statuses.get(200)).toBeGreaterThan(100)
    expect(statuses.get(400)).toBeGreaterThan(500)
  })

  it('of megabytes cost little more to refuse than to parse', async () => {
    const { app } = await serve()
    const time = async (payload: string) => {
      const start = performance.now()
      const response = await app.inject({
        method: 'POST',
        url: '/v1/completions',
        headers: { 'content-type': 'application/json' },
        payload,
      })
      expect(response.statusCode).toBe(400)
      return performance.now() - start
    }
    const ids = Array<unknown>(1_300_000).fill(12)
    const good = JSON.stringify({ prompt: ids })
    await time(good)
    const usual = await time(good)
    expect(await time(JSON.stringify({ prompt: [...ids, 'x'] }))).toBeLessThan(usual * 5 + 500)
    expect(await time(JSON.stringify({ prompt: ['x', ...ids] }))).toBeLessThan(usual * 5 + 500)
    expect(await time(JSON.stringify({ prompt: [...Array<unknown>(900_000).fill([1]), 'x'] }))).toBeLessThan(usual * 5 + 500)
    expect(await time(`{"prompt":${'['.repeat(4_000_000)}`)).toBeLessThan(usual * 5 + 500)
    expect(await time(`{"prompt":${'['.repeat(2_000_000)}${']'.repeat(2_000_000)}}`)).toBeLessThan(usual * 5 + 500)
  })

  it('are measured in depth outside strings only', () => {
    expect(deeperThan('[[[]]]', 3)).toBe(false)
    expect(deeperThan('[[[]]]', 2)).toBe(true)
    expect(deeperThan('[[],[],[{}]]', 3)).toBe(false)
    expect(deeperThan('{"[[[[": "{{{{"}', 1)).toBe(false)
    expect(deeperThan('["\\"[[["]', 1)).toBe(false)
    expect(deeperThan('["\\\\", [[]]]', 2)).toBe(true)
    expect(deeperThan('["\\\\\\"[[[[", 1]', 1)).toBe(false)
    expect(deeperThan('["unclosed [[[[', 1)).toBe(false)
  })
})
