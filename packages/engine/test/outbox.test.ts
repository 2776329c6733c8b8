import { expect, test } from 'vitest'
import { type EngineOutput, type EngineRequest, resolveSamplingParams } from '../src/index.ts'
import { Outbox, TOKEN_WORDS } from '../src/outbox.ts'

const request = (id: string, n = 1): EngineRequest => ({ id, promptTokenIds: [1], params: resolveSamplingParams({ n }) })
const output = (requestId: string, token: number, more: Partial<EngineOutput> = {}): EngineOutput => ({
  requestId,
  index: 0,
  tokenIds: [token],
  finishReason: null,
  ...more,
})
/** What a front makes of it: the tokens of each answer. */
function read(outbox: Outbox, numbers: Record<number, string>): Record<string, number[]> {
  const answers: Record<string, number[]> = {}
  const { tokens, outputs } = outbox.take()
  const push = (id: string, index: number, ids: readonly number[]) => {
    answers[`${id}.${index}`] ??= []
    answers[`${id}.${index}`]!.push(...ids)
  }
  for (let i = 0; i < tokens.length; i += TOKEN_WORDS) push(numbers[tokens[i]!]!, tokens[i + 1]!, [tokens[i + 2]!])
  for (const o of outputs) push(o.requestId, o.index, o.tokenIds)
  return answers
}

test('tokens with more to say and tokens without arrive in their order, in one message or in several', () => {
  const numbers = { 4: 'a', 9: 'b' }
  for (const messages of [1, 2, 3, 8]) {
    const outbox = new Outbox()
    outbox.open(request('a', 2), 4)
    outbox.open(request('b'), 9)
    const said = [
      output('a', 1, { cachedTokens: 0 }),
      output('a', 2),
      output('b', 20, { cachedTokens: 0 }),
      output('a', 3, { index: 1 }),
      output('a', 4),
      output('b', 21),
      output('a', 5, { index: 1, logprobs: [{ tokenId: 5, logprob: 0, rank: 1, top: [] }] }),
      output('a', 6, { index: 1 }),
      output('b', 22, { finishReason: 'stop', stopReason: 22 }),
      output('a', 7, { index: 1, finishReason: 'length', stopReason: null }),
      output('a', 8),
      output('a', 9, { finishReason: 'length', stopReason: null }),
    ]
    const got: Record<string, number[]> = {}
    for (const [i, o] of said.entries()) {
      outbox.add(o)
      if ((i + 1) % Math.ceil(said.length / messages) !== 0 && i + 1 < said.length) continue
      for (const [key, ids] of Object.entries(read(outbox, numbers))) got[key] = [...(got[key] ?? []), ...ids]
      expect(outbox.isEmpty).toBe(true)
    }
    expect(got).toEqual({ 'a.0': [1, 2, 4, 8, 9], 'a.1': [3, 5, 6, 7], 'b.0': [20, 21, 22] })
  }
})

test('a plain token is three numbers, whatever its request is called; those of an unknown request stay outputs', () => {
  const outbox = new Outbox()
  outbox.open(request('x'.repeat(1000)), 3)
  for (let i = 0; i < 1000; i++) outbox.add(output('x'.repeat(1000), i))
  outbox.add(output('nobody', 1))
  outbox.fail({ requestId: 'x'.repeat(1000), code: 'STEP_FAILED', message: '' })
  outbox.add(output('x'.repeat(1000), 5))
  const { tokens, outputs, failures } = outbox.take()
  expect([tokens.length, outputs.map((o) => o.requestId.length), failures.length]).toEqual([3000, [6, 1000], 1])
  // A request that is no request is refused by the engine, not here.
  outbox.open(null as unknown as EngineRequest, 1)
  outbox.open({ id: 'z' } as unknown as EngineRequest, 2)
})
