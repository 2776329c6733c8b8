import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { EngineCore, resolveSamplingParams } from '@aphrodite/engine'
import { createCpuDevice } from '@aphrodite/kernels-cpu'
import { unquantized } from '@aphrodite/layers'
import { LLM, type LLMOptions, readTensors } from '@aphrodite/llm'
import { openCheckpoint, readConfig } from '@aphrodite/loader'
import { ModelRegistry } from '@aphrodite/models'
import { Arena, singleRank } from '@aphrodite/tensor'
import { describe, expect, test } from 'vitest'

const fixtures = fileURLToPath(new URL('../fixtures/hf', import.meta.url))
const names = readdirSync(fixtures)
const GREEDY = { temperature: 0, maxTokens: 24, ignoreEos: true } as const

async function withLLM<T>(options: LLMOptions, fn: (llm: LLM) => Promise<T>): Promise<T> {
  const llm = await LLM.create({ device: 'cpu', skipTokenizerInit: true, kvCacheBytes: 16 << 20, maxNumSeqs: 16, ...options })
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

/** Each prompt's tokens from an engine that takes everybody's blocks away every fifth step. */
async function preempted(folder: string, dtype: 'float32' | 'bfloat16', prompts: readonly (readonly number[])[]): Promise<number[][]> {
  const type = dtype === 'float32' ? 'f32' : 'bf16'
  const device = createCpuDevice()
  const arena = new Arena(device)
  const model = await ModelRegistry.create(readConfig(folder).json)
  model.materialize({ device, arena, tp: singleRank, dtype: type, quantization: unquantized })
  const checkpoint = openCheckpoint(folder)
  model.loadWeights(checkpoint)
  checkpoint.close()
  const core = new EngineCore({ model, device, cacheDtype: type, maxNumBatchedTokens: 64, kvCacheBytes: 16 << 20 })
  const tokens = prompts.map((): number[] => [])
  for (const [i, promptTokenIds] of prompts.entries()) core.add({ id: String(i), promptTokenIds, params: resolveSamplingParams(GREEDY) })
  for (let steps = 1; core.hasWork; steps++) {
    for (const output of (await core.step()).outputs) tokens[Number(output.requestId)]!.push(...output.tokenIds)
    if (steps % 5 === 0) core.preemptAll()
  }
  expect(core.stats().preemptions).toBeGreaterThan(10)
  core.assertBalanced()
  core.close()
  arena.release()
  device.close()
  return tokens
}

describe.each(names)('%s', (name) => {
  const model = join(fixtures, name)
  const tensors = readTensors(join(model, 'reference.safetensors'))
  const prompts = [0, 1, 2].map((k) => tensors.ints(`prompt.${k}`))

  test.each(['float32', 'bfloat16'] as const)(
    '%s: the same tokens alone, in a batch, in chunks of 7, after a prefix hit, after a preemption',
    async (dtype) => {
      const alone = await withLLM({ model, dtype, enablePrefixCaching: false }, async (llm) => {
        const tokens: (readonly number[])[] = []
        for (const p of prompts) tokens.push(...(await together(llm, [p])))
        return tokens
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
      expect(await preempted(model, dtype, prompts), 'after being preempted every fifth step').toEqual(alone)
    },
  )
})
