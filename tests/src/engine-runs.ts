import { EngineCore, type EngineOptions, type EngineRequest, resolveSamplingParams } from '@aphrodite/engine'
import { unquantized } from '@aphrodite/layers'
import { ModelRegistry } from '@aphrodite/models'
import { Arena, type Device, singleRank } from '@aphrodite/tensor'
import { expect } from 'vitest'
import { type Fixture, readFixture } from './fixture-cases.ts'

const PARAMS = [
  { temperature: 0 },
  { temperature: 0.9, seed: 1, topP: 0.9 },
  { temperature: 1.2, seed: 2, topK: 12, n: 2 },
  { temperature: 0, repetitionPenalty: 1.3, frequencyPenalty: 0.4 },
  { temperature: 0.7, seed: 3, presencePenalty: 0.8, logprobs: 2 },
  { temperature: 1, seed: 4, stopTokenIds: Array.from({ length: 12 }, (_, i) => i * 3), minTokens: 2 },
  { temperature: 1, seed: 5, logitBias: { 5: 2, 6: -100 }, promptLogprobs: 1 },
  { temperature: 1, seed: 6, minP: 0.1, maxTokens: 1 },
]

/** Not all of them run at once, and prompts are cut. */
const OPTIONS: Partial<EngineOptions> = { maxNumSeqs: 7, maxNumBatchedTokens: 40, maxModelLen: 112 }

const requestsOf = (fixture: Fixture): EngineRequest[] =>
  PARAMS.map((params, i) => ({
    id: `r${i}`,
    promptTokenIds: fixture.prompts[i % fixture.prompts.length]!.prompt.slice(0, 70 + i),
    params: resolveSamplingParams({ maxTokens: 12 + 3 * i, ...params }),
  }))

/** How many answers there are. */
export const ANSWERS = PARAMS.length + 1

/**
 * Requests of every kind to the model of a fixture, in one crowd: the tokens of every answer, and how it ended. `r0` is aborted
 * after seven tokens. Closes the device.
 */
export async function runFixture(name: string, device: Device, options: Partial<EngineOptions>): Promise<Record<string, unknown>> {
  const fixture = readFixture(name)
  const arena = new Arena(device, 1 << 20)
  const model = await ModelRegistry.create(fixture.config)
  model.materialize({ device, arena, tp: singleRank, dtype: 'f32', quantization: unquantized })
  model.loadWeights(fixture.weights)
  fixture.weights.close()
  const answers: Record<string, { tokens: number[]; end: unknown }> = {}
  const core = new EngineCore({ model, device, kvCacheBytes: 1 << 21, ...OPTIONS, ...options })
  try {
    for (const request of requestsOf(fixture)) core.add(request)
    while (core.hasWork) {
      const { outputs, failures } = await core.step()
      expect(failures).toEqual([])
      for (const { requestId, index, tokenIds, finishReason } of outputs) {
        answers[`${requestId}.${index}`] ??= { tokens: [], end: null }
        const answer = answers[`${requestId}.${index}`]!
        answer.tokens.push(...tokenIds)
        answer.end = finishReason
        if (requestId === 'r0' && answer.tokens.length === 7 && !finishReason) core.abort('r0')
      }
    }
    core.assertBalanced()
  } finally {
    core.close()
    arena.release()
    device.close()
  }
  return answers
}
