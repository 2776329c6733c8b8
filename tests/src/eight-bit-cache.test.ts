import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { modelPath } from '@aphrodite/demo-model'
import { createCpuDevice } from '@aphrodite/kernels-cpu'
import { type ChatMessage, LLM } from '@aphrodite/llm'
import { ModelRegistry } from '@aphrodite/models'
import { Runner } from '@aphrodite/testing/runner'
import { afterAll, describe, expect, test } from 'vitest'
import { EIGHT_BIT_BOUNDS, FIXTURES, readFixture, relativeError } from './fixture-cases.ts'

const worst: string[] = []
afterAll(() => {
  if (process.env['APHRODITE_TEST_ERRORS']) console.log(worst.join('\n'))
})

describe.each(['f8e4m3', 'f8e5m2'] as const)('models with a cache of %s', (cacheDtype) => {
  test.each(FIXTURES)('%s has the logits of Hugging Face, less exactly', async (name) => {
    const fixture = readFixture(name)
    const device = createCpuDevice({ threads: 2, pin: false })
    const runner = new Runner(await ModelRegistry.create(fixture.config), fixture.weights, device, { dtype: 'f32', cacheDtype })
    try {
      const errors: number[] = []
      for (const { prompt, logits } of fixture.prompts) {
        const rows = runner.logits(prompt)
        for (const [position, expected] of logits) errors.push(relativeError(rows[position]!, expected))
        // What is in the cache is what a token attends to, also in the step that puts it there.
        for (const [i, row] of runner.logits(prompt, 7).entries()) expect(row).toEqual(rows[i])
      }
      const most = Math.max(...errors) // NaN where one is
      worst.push(`${cacheDtype} ${name} ${most.toExponential(2)}`)
      expect(most).toBeLessThanOrEqual(EIGHT_BIT_BOUNDS[cacheDtype])
      expect(most).toBeGreaterThan(1e-4) // it was in use
    } finally {
      fixture.weights.close()
      runner.close()
      device.close()
    }
  })
})

describe('the demo model with kvCacheDtype', () => {
  interface Reference {
    readonly chats: readonly { messages: ChatMessage[]; tools: unknown[] | null; greedy: number[]; text: string }[]
  }
  const { chats } = JSON.parse(readFileSync(join(modelPath, 'reference.json'), 'utf8')) as Reference
  const open = (kvCacheDtype: 'auto' | 'fp8' | 'bf16' | 'fp8_e5m2') =>
    LLM.create({ device: 'cpu', model: modelPath, dtype: 'float32', kvCacheDtype, kvCacheBytes: 8 << 20 })

  test('fp8 answers most chats with the same text', async () => {
    const llm = await open('fp8')
    try {
      expect(llm.info.kvCacheDtype).toBe('fp8_e4m3')
      const answers = await llm.generate(
        chats.map(({ messages, tools }) => ({ messages, ...(tools && { tools }) })),
        chats.map(({ greedy }) => ({ temperature: 0, maxTokens: greedy.length })),
      )
      const same = answers.filter((a, i) => a.outputs[0]!.text === chats[i]!.text).length
      worst.push(`demo model: ${same} of ${chats.length} chats`)
      expect(same).toBeGreaterThanOrEqual(0.75 * chats.length)
    } finally {
      await llm.close()
    }
  })

  test('the same memory holds twice the tokens of bf16, and four times those of f32', async () => {
    const tokens: number[] = []
    for (const dtype of ['auto', 'bf16', 'fp8', 'fp8_e5m2'] as const) {
      const llm = await open(dtype)
      tokens.push(llm.info.ledger.cacheTokens)
      await llm.close()
    }
    const [f32, bf16, e4m3, e5m2] = tokens as [number, number, number, number]
    const blocks = (n: number): number => n / 16 + 1 // one is nobody's
    expect(Math.abs(blocks(bf16) - 2 * blocks(f32))).toBeLessThanOrEqual(1)
    expect(Math.abs(blocks(e4m3) - 2 * blocks(bf16))).toBeLessThanOrEqual(1)
    expect(e5m2).toBe(e4m3)
  })

  test('says which there are', async () => {
    await expect(LLM.create({ model: modelPath, kvCacheDtype: 'fp4' as 'fp8' })).rejects.toThrow(
      'kvCacheDtype should be one of auto, f32, bf16, f16, fp8, fp8_e4m3, fp8_e5m2, is "fp4"',
    )
  })
})
