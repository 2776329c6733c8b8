import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { LLM, type LLMOptions, readTensors } from '@aphrodite/llm'
import { describe, expect, test } from 'vitest'

const fixtures = fileURLToPath(new URL('../fixtures/hf', import.meta.url))
const names = readdirSync(fixtures)
const GREEDY = { temperature: 0, maxTokens: 24, ignoreEos: true } as const

async function withLLM<T>(options: LLMOptions, fn: (llm: LLM) => Promise<T>): Promise<T> {
  const llm = await LLM.create({ skipTokenizerInit: true, kvCacheBytes: 16 << 20, maxNumSeqs: 16, ...options })
  try {
    return await fn(llm)
  } finally {
    await llm.close()
  }
}

/** Each prompt's tokens, all submitted together. */
async function together(llm: LLM, prompts: readonly (readonly number[])[]): Promise<(readonly number[])[]> {
  const results = await llm.generate(
    prompts.map((promptTokenIds) => ({ promptTokenIds })),
    GREEDY,
  )
  return results.map((r) => r.outputs[0]!.tokenIds)
}

describe.each(names)('%s', (name) => {
  const model = join(fixtures, name)
  const tensors = readTensors(join(model, 'reference.safetensors'))
  const prompts = [0, 1, 2].map((k) => tensors.ints(`prompt.${k}`))

  test.each(['float32', 'bfloat16'] as const)(
    '%s: the same tokens alone, in a batch, in chunks of 7, after a prefix hit, after a preemption',
    async (dtype) => {
      const [alone, blockBytes] = await withLLM({ model, dtype, enablePrefixCaching: false }, async (llm) => {
        const tokens: (readonly number[])[] = []
        for (const p of prompts) tokens.push(...(await together(llm, [p])))
        return [tokens, llm.info.ledger.groups.reduce((sum, g) => sum + g.blockBytes, 0)] as const
      })
      await withLLM({ model, dtype }, async (llm) => {
        expect(await together(llm, prompts), 'in a batch').toEqual(alone)
        const again = await llm.generate(
          prompts.map((promptTokenIds) => ({ promptTokenIds })),
          GREEDY,
        )
        expect(
          again.map((r) => r.outputs[0]!.tokenIds),
          'after a prefix hit',
        ).toEqual(alone)
        expect(
          again.map((r) => r.cachedTokens),
          'whole blocks of the prompts were cached',
        ).toEqual([0, 16, 80])
      })
      await withLLM({ model, dtype, maxNumBatchedTokens: 7 }, async (llm) =>
        expect(await together(llm, prompts), 'in chunks of 7').toEqual(alone),
      )
      // The three need 13 blocks together, the longest alone 8: with 10, somebody must give way.
      await withLLM({ model, dtype, maxModelLen: 128, kvCacheBytes: 10 * blockBytes, enablePrefixCaching: false }, async (llm) => {
        expect(await together(llm, prompts), 'after a preemption').toEqual(alone)
        expect((await llm.stats()).preemptions).toBeGreaterThan(0)
      })
    },
  )
})
