import { describe, expect, test } from 'vitest'
import { EngineCore, type EngineOutput, type EngineRequest, inProcessEngine, resolveSamplingParams } from '../src/index.ts'
import { runAlone } from './alone.ts'
import { FakeDevice } from './fake-device.ts'
import { FakeModel, type LayerKind } from './fake-model.ts'

const KINDS: readonly LayerKind[] = [{ window: 0 }]
const request = (id: string, promptTokenIds: number[], params: object = {}): EngineRequest => ({
  id,
  promptTokenIds,
  params: resolveSamplingParams({ temperature: 0, maxTokens: 8, ...params }),
})

describe('EngineCore', () => {
  test('generates what the model says', async () => {
    const device = new FakeDevice()
    const core = new EngineCore({ model: new FakeModel(device, KINDS), device, kvCacheBytes: 1 << 16 })
    const engine = inProcessEngine(core)
    const r = request('a', [1, 2, 3])
    const outputs: EngineOutput[] = []
    for await (const output of engine.submit(r)) outputs.push(output)
    const expected = runAlone(r, 0, KINDS, { maxModelLen: 512, eosTokenIds: [] })
    expect(outputs.flatMap((o) => o.tokenIds)).toEqual(expected.tokenIds)
    expect(outputs.at(-1)?.finishReason).toBe('length')
    core.assertBalanced()
    await engine.close()
    expect(device.allocated.size).toBe(0)
  })
})
