import { lazyDevice } from '@aphrodite/testing'
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { EngineCore, type EngineOptions, type EngineRequest, resolveSamplingParams } from '../src/index.ts'
import { paddedRows, promptShape, promptShapes } from '../src/step-shapes.ts'
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
let overlapping = false
function setUp(options: Partial<EngineOptions> = {}): void {
  device = new FakeDevice({ captures: true })
  model = new FakeModel(device, KINDS, 1024)
  core = new EngineCore({ model, device: overlapping ? lazyDevice(device) : device, kvCacheBytes: 1 << 18, ...options })
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

describe.each([false, true])('captured decode steps, where steps overlap: %s', (overlap) => {
  beforeAll(() => {
    overlapping = overlap
  })

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
      if (step.workspace.device.asynchronous === overlap && step.workspace.device.capture)
        step.workspace.device.upload(step.workspace.empty([1], 'i32'), Int32Array.of(1))
      return forward(step)
    }
    await drain([request('a', 20), request('b', 30)])
    expect([device.graphs, device.replays]).toEqual([0, 0])
  })
})

describe('padded decode steps', () => {
  beforeAll(() => {
    overlapping = true
  })

  test('serve every number of sequences by few graphs', async () => {
    setUp()
    const sizes: number[] = []
    model.onForward = (step) => {
      if (step.attnMetadata[0]!.kind === 'paged' && step.attnMetadata[0]!.maxQueryLength === 1) sizes.push(step.inputIds.size)
    }
    await drain(Array.from({ length: 21 }, (_, i) => request(String.fromCharCode(97 + i), 5 + i, { maxTokens: 10 + i * 3 })))
    expect([...new Set(sizes)]).toEqual([24, 16, 8, 4, 2, 1])
    expect(device.graphs).toBe(6)
    // No more sequences than there may be: a batch of that many is not padded.
    core.close()
    setUp({ maxNumSeqs: 19 })
    sizes.length = 0
    model.onForward = (step) => void sizes.push(step.inputIds.size)
    await drain(Array.from({ length: 21 }, (_, i) => request(String.fromCharCode(97 + i), 1, { maxTokens: 10 })))
    expect(sizes).toContain(19)
    expect(sizes).not.toContain(24)
  })

  test('can be captured before the first request', async () => {
    setUp({ maxNumSeqs: 12, captureAtStart: true })
    // 1, 2, 4, 8, 12 sequences of 16, 32 and 64 columns; a prompt of 11 lengths.
    expect(device.graphs).toBe(26)
    const { replays } = device
    await drain([request('a', 20, { maxTokens: 1 })])
    expect([device.graphs, device.replays]).toEqual([26, replays + 1])
    await drain([request('a', 20), request('b', 300, { maxTokens: 300 }), request('c', 7, { temperature: 1, seed: 2 })])
    expect(device.replays).toBeGreaterThan(295)
    core.close()
    setUp({ captureAtStart: [3, 4, 999], maxNumSeqs: 6 })
    expect(device.graphs).toBe(6)
  })

  test('that the device has no room for are walked through, and the others go on', async () => {
    setUp()
    const { capture } = device
    let room = 3
    device.capture = (enqueue) => {
      if (room-- <= 0) throw new Error('out of memory')
      return capture!(enqueue)
    }
    core.close()
    core = new EngineCore({ model, device: lazyDevice(device), kvCacheBytes: 1 << 18 })
    await drain(Array.from({ length: 21 }, (_, i) => request(String.fromCharCode(97 + i), 5 + i, { maxTokens: 10 + i * 3 })))
    expect(device.graphs).toBeLessThanOrEqual(3)
    expect(device.replays).toBeGreaterThan(20)
    const before = device.replays
    room = 10
    // Shapes that were refused may be forgotten by now; those that were not are captured.
    await drain(Array.from({ length: 40 }, (_, i) => request(`${i}`, 5 + i, { maxTokens: 20 })))
    expect(device.replays).toBeGreaterThan(before)
  })

  test('are of few numbers of rows', () => {
    const rows = Array.from({ length: 1024 }, (_, i) => paddedRows(i + 1, 1000))
    for (const [i, n] of rows.slice(0, 1000).entries()) expect([n >= i + 1, n <= Math.max(2 * i + 1, i + 64)]).toEqual([true, true])
    const all = [...new Set(rows)]
    expect(all).toEqual([...[1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64], ...range(96, 256, 32), ...range(320, 960, 64), 1000])
  })
})

describe('padded steps with prompts in them', () => {
  beforeAll(() => {
    overlapping = true
  })
  /** Tokens of each step that is walked through or captured, by what is given to the model. */
  const watch = (): number[] => {
    const sizes: number[] = []
    model.onForward = (step) => {
      if (step.attnMetadata[0]!.kind === 'paged' && step.attnMetadata[0]!.maxQueryLength > 1) sizes.push(step.inputIds.size)
    }
    return sizes
  }

  test('are replayed from the third of a shape on, the draw too', async () => {
    setUp({ enablePrefixCaching: false })
    const sizes = watch()
    for (const length of [100, 110, 127, 128, 97]) await drain([request('a', length, { maxTokens: 1 })])
    expect(sizes).toEqual([128, 128, 128, 128, 128])
    expect([device.graphs, device.replays]).toEqual([1, 4])
    expect(device.calls['sample']).toBe(5)
  })

  test('hold prompts of all lengths beside sequences that decode', async () => {
    setUp({ enablePrefixCaching: false, maxNumSeqs: 64, maxNumBatchedTokens: 300 })
    const sizes = watch()
    const lengths = Array.from({ length: 60 }, (_, i) => 1 + ((i * 37) % 170))
    const params = [{}, { temperature: 1, seed: 5 }, { repetitionPenalty: 1.3 }, { logprobs: 2 }]
    await drain(lengths.map((n, i) => request(`${i}`, n, { maxTokens: 3 + (i % 40), ...params[i % 7] })))
    const { replays } = device
    await drain(lengths.map((n, i) => request(`${i}`, n, { maxTokens: 3 + (i % 40) })))
    expect(device.replays).toBeGreaterThan(replays)
    expect(new Set(sizes)).toContain(300)
    expect(Math.max(...sizes)).toBe(300)
  })

  test('serve chunks that end before their prompt does', async () => {
    setUp({ enablePrefixCaching: false, maxNumBatchedTokens: 32 })
    const sizes = watch()
    await drain([request('a', 300, { maxTokens: 2 }), request('b', 300, { maxTokens: 2 })])
    expect(new Set(sizes)).toEqual(new Set([32]))
    expect(device.replays).toBeGreaterThan(10)
  })

  test('do not serve who wants to know of the prompt itself', async () => {
    setUp({ enablePrefixCaching: false })
    const sizes = watch()
    for (let i = 0; i < 4; i++) await drain([request('a', 100, { maxTokens: 1, promptLogprobs: 1 })])
    expect([device.graphs, ...sizes]).toEqual([0, 100, 100, 100, 100])
  })

  test('are of few shapes, which hold the step and somebody for what is too many', () => {
    const most = { rows: 64, tokens: 512 }
    const columnsOf = (context: number): number => Math.ceil(context / 16)
    const shapes = new Set<string>()
    for (const sequences of [1, 2, 3, 7, 8, 31, 32, 63, 64, 70])
      for (let tokens = sequences + 1; tokens <= 520; tokens += 3) {
        const shape = promptShape({ sequences, tokens, longest: 40 }, most, columnsOf)
        expect(shape !== undefined, `${sequences} of ${tokens}`).toBe(sequences < 64 && tokens <= 512)
        if (!shape) continue
        expect(shape.rows).toBeGreaterThan(sequences)
        expect(shape.tokens).toBeGreaterThanOrEqual(tokens)
        expect(shape.maxQueryLength).toBe(shape.tokens)
        expect(shape.columns * 16).toBeGreaterThanOrEqual(Math.max(40, shape.tokens - tokens))
        shapes.add(`${shape.rows} ${shape.tokens}`)
      }
    expect(shapes.size).toBeLessThanOrEqual(6 * 11)
    expect(promptShapes(100, most, columnsOf).map((s) => [s.tokens, s.rows])).toEqual([
      [128, 2],
      [96, 2],
      [64, 2],
      [32, 2],
      [16, 2],
    ])
    expect(promptShapes(100, { rows: 1, tokens: 512 }, columnsOf)).toEqual([])
  })
})

const range = (from: number, to: number, step: number): number[] =>
  Array.from({ length: (to - from) / step + 1 }, (_, i) => from + i * step)
