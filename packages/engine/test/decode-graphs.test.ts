import { afterEach, describe, expect, test } from 'vitest'
import { EngineCore, type EngineRequest, resolveSamplingParams } from '../src/index.ts'
import { runAlone } from './alone.ts'
import { FakeDevice } from './fake-device.ts'
import { FakeModel, type LayerKind, VOCAB } from './fake-model.ts'

const KINDS: readonly LayerKind[] = [{ window: 0 }, { window: 40 }]
const request = (id: string, length: number, params: object = {}): EngineRequest => ({
  id,
  promptTokenIds: Array.from({ length }, (_, i) => (i * 5 + id.charCodeAt(0)) % VOCAB),
  params: resolveSamplingParams({ temperature: 0, maxTokens: 100, ...params }),
})

let device: FakeDevice
let model: FakeModel
let core: EngineCore
function setUp(): void {
  device = new FakeDevice({ captures: true })
  model = new FakeModel(device, KINDS, 1024)
  core = new EngineCore({ model, device, kvCacheBytes: 1 << 18 })
}
afterEach(() => {
  core.close()
  expect(device.graphs).toBe(0)
  expect(device.allocated.size).toBe(0)
})

async function drain(requests: readonly EngineRequest[]): Promise<void> {
  const tokens = new Map<string, number[]>(requests.map((r) => [r.id, []]))
  for (const r of requests) core.add(r)
  while (core.hasWork) {
    const { outputs, failures } = await core.step()
    expect(failures).toEqual([])
    for (const o of outputs) tokens.get(o.requestId)!.push(...o.tokenIds)
  }
  core.assertBalanced()
  for (const r of requests) expect(tokens.get(r.id)).toEqual(runAlone(r, 0, KINDS, { maxModelLen: 1024, eosTokenIds: [] }).tokenIds)
}

describe('captured decode steps', () => {
  test('give the same tokens, whatever grows meanwhile: contexts, page tables, windows', async () => {
    setUp()
    // From 20 to 600 tokens: three widths of page tables.
    await drain([request('a', 20, { maxTokens: 580 })])
    expect(device.graphs).toBe(3)
    expect(device.replays).toBeGreaterThan(550)
  })

  test('serve a crowd that shrinks and changes', async () => {
    setUp()
    const params = [{}, { temperature: 1, seed: 5 }, { repetitionPenalty: 1.3 }, { logprobs: 2 }, { presencePenalty: 1 }]
    await drain(params.map((p, i) => request(String.fromCharCode(97 + i), 10 + i * 7, { ...p, maxTokens: 20 + i * 15 })))
    expect(device.replays).toBeGreaterThan(10)
    await drain([request('x', 50), request('y', 3, { temperature: 0.5, seed: 1, topK: 5 })])
  })

  test('are given up for a model that cannot be captured', async () => {
    setUp()
    const forward = model.forward.bind(model)
    model.forward = (step) => {
      // It looks at a number of the host's on its way.
      if (step.workspace.device === device) device.upload(step.workspace.empty([1], 'i32'), Int32Array.of(1))
      return forward(step)
    }
    await drain([request('a', 20), request('b', 30)])
    expect([device.graphs, device.replays]).toEqual([0, 0])
  })
})
