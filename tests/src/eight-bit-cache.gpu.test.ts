import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { modelPath } from '@aphrodite/demo-model'
import { type CudaDevice, createCudaDevice } from '@aphrodite/kernels-cuda'
import { type ChatMessage, LLM } from '@aphrodite/llm'
import { ModelRegistry } from '@aphrodite/models'
import { Runner } from '@aphrodite/testing/runner'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { EIGHT_BIT_BOUNDS, FIXTURES, readFixture, relativeError } from './fixture-cases.ts'
import { describeOnCuda } from './on-cuda.ts'

const worst: string[] = []
afterAll(() => {
  if (process.env['APHRODITE_TEST_ERRORS']) console.log(worst.join('\n'))
})

describeOnCuda('8-bit caches on CUDA', () => {
  let device: CudaDevice
  beforeAll(() => {
    device = createCudaDevice()
  })
  afterAll(() => device?.close())

  describe.each(['f8e4m3', 'f8e5m2'] as const)('of %s', (cacheDtype) => {
    test.each(FIXTURES)('%s has the logits of Hugging Face, less exactly: whole, in chunks of 7, one by one', async (name) => {
      const fixture = readFixture(name)
      const runner = new Runner(await ModelRegistry.create(fixture.config), fixture.weights, device, { dtype: 'bf16', cacheDtype })
      try {
        const errors: number[] = []
        for (const { prompt, logits } of fixture.prompts)
          for (const chunk of [prompt.length, 7, 1]) {
            const rows = runner.logits(prompt, chunk)
            for (const [position, expected] of logits) errors.push(relativeError(rows[position]!, expected))
          }
        const most = Math.max(...errors) // NaN where one is
        worst.push(`${cacheDtype} ${name} ${most.toExponential(2)}`)
        expect(most).toBeLessThanOrEqual(EIGHT_BIT_BOUNDS[cacheDtype])
      } finally {
        fixture.weights.close()
        runner.close()
      }
    })
  })

  interface Reference {
    readonly chats: readonly { messages: ChatMessage[]; tools: unknown[] | null; greedy: number[]; text: string }[]
  }
  const { chats } = JSON.parse(readFileSync(join(modelPath, 'reference.json'), 'utf8')) as Reference

  test('the demo model answers most chats with the same text, from captured steps too', async () => {
    const llm = await LLM.create({ model: modelPath, device: 'cuda', kvCacheDtype: 'fp8', kvCacheBytes: 64 << 20, maxModelLen: 1024 })
    try {
      for (let round = 0; round < 2; round++) {
        const answers = await llm.generate(
          chats.map(({ messages, tools }) => ({ messages, ...(tools && { tools }) })),
          chats.map(({ greedy }) => ({ temperature: 0, maxTokens: greedy.length })),
        )
        const same = answers.filter((a, i) => a.outputs[0]!.text === chats[i]!.text).length
        worst.push(`demo model: ${same} of ${chats.length} chats`)
        expect(same).toBeGreaterThanOrEqual(0.6 * chats.length)
      }
    } finally {
      await llm.close()
    }
  })
})
