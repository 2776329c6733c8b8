import type { Device } from '@aphrodite/tensor'
import { lazyDevice } from '@aphrodite/testing'
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import {
  EngineCore,
  type EngineFailure,
  type EngineOptions,
  type EngineOutput,
  type EngineRequest,
  resolveSamplingParams,
} from '../src/index.ts'
import { runAlone } from './alone.ts'
import { FakeDevice, type FakeKernels, logprobRow } from './fake-device.ts'
import { Alone, FakeModel, type LayerKind, VOCAB } from './fake-model.ts'

const KINDS: readonly LayerKind[] = [{ window: 0 }]
const BLOCK = 64
const LIMITS = { maxModelLen: 512, eosTokenIds: [] }
const request = (id: string, promptTokenIds: number[], params: object = {}, more: object = {}): EngineRequest => ({
  id,
  promptTokenIds,
  params: resolveSamplingParams({ temperature: 0, maxTokens: 8, ...params }),
  ...more,
})
const prompt = (n: number, seed = 1): number[] => Array.from({ length: n }, (_, i) => (i * seed * 7 + seed + (i >> 3)) % VOCAB)

let device: FakeDevice
/** What the engine is given: the device itself, or one that puts everything off. */
let given: Device
let model: FakeModel
let core: EngineCore
let overlapping = false
const cores: EngineCore[] = []

function setUp(options: Partial<EngineOptions> = {}, kinds = KINDS): void {
  device = new FakeDevice()
  given = overlapping ? lazyDevice(device) : device
  model = new FakeModel(device, kinds)
  core = new EngineCore({ model, device: given, kvCacheBytes: BLOCK * 200, ...options })
  cores.push(core)
}
afterEach(() => {
  for (const core of cores.splice(0)) core.close()
  expect(device.allocated.size).toBe(0)
})

/** Steps until there is no work; what came, by request. */
async function drain(
  outputs: EngineOutput[] = [],
): Promise<{ of: (id: string, index?: number) => EngineOutput[]; failures: EngineFailure[] }> {
  const failures: EngineFailure[] = []
  while (core.hasWork) {
    const events = await core.step()
    outputs.push(...events.outputs)
    failures.push(...events.failures)
  }
  core.assertBalanced()
  return { of: (id, index = 0) => outputs.filter((o) => o.requestId === id && o.index === index), failures }
}
const tokensOf = (outputs: EngineOutput[]): number[] => outputs.flatMap((o) => o.tokenIds)
const alone = (r: EngineRequest, index = 0) => runAlone(r, index, KINDS, { ...LIMITS, eosTokenIds: core.options.eosTokenIds })

/** Tokens that the model computes, from now on. */
function countTokens(): () => number {
  let count = 0
  model.onForward = (step) => {
    count += step.inputIds.size
  }
  return () => count
}

describe.each([false, true])('where steps overlap: %s', (overlap) => {
  beforeAll(() => {
    overlapping = overlap
  })

  describe('answers', () => {
    test('end by length, by an end token, by a stop id', async () => {
      setUp({ eosTokenIds: [5] })
      const plain = request('plain', prompt(10), { maxTokens: 12, ignoreEos: true })
      const expected = alone(plain).tokenIds
      const stop = expected[4]!
      core.add(plain)
      core.add(request('stop', prompt(10), { maxTokens: 12, ignoreEos: true, stopTokenIds: [stop] }))
      core.add(request('min', prompt(10), { maxTokens: 12, ignoreEos: true, stopTokenIds: [stop], minTokens: 9 }))
      const { of } = await drain()
      expect(tokensOf(of('plain'))).toEqual(expected)
      expect(of('plain').at(-1)).toMatchObject({ finishReason: 'length', stopReason: null })
      expect(tokensOf(of('stop'))).toEqual(expected.slice(0, expected.indexOf(stop) + 1))
      expect(of('stop').at(-1)).toMatchObject({ finishReason: 'stop', stopReason: stop })
      expect(tokensOf(of('min')).slice(0, 9)).not.toContain(stop)
      core.close()

      setUp({ eosTokenIds: [stop] })
      core.add(request('eos', prompt(10), { maxTokens: 12 }))
      const end = (await drain()).of('eos')
      expect(tokensOf(end)).toEqual(expected.slice(0, expected.indexOf(stop) + 1))
      expect(end.at(-1)).toMatchObject({ finishReason: 'stop', stopReason: null })
    })

    test('end when the context is full', async () => {
      setUp({ maxModelLen: 20 })
      core.add(request('a', prompt(15), { maxTokens: null }))
      const { of } = await drain()
      expect(tokensOf(of('a'))).toHaveLength(5)
      expect(of('a').at(-1)?.finishReason).toBe('length')
    })

    test('of maxTokens 0 are empty', async () => {
      setUp({ maxModelLen: 32 })
      core.add(request('a', prompt(32), { maxTokens: 0, promptLogprobs: 0, n: 2 }))
      const { of } = await drain()
      expect(of('a')).toMatchObject([{ tokenIds: [], finishReason: 'length', promptLogprobs: { length: 32 } }])
      expect(of('a', 1)).toMatchObject([{ tokenIds: [], finishReason: 'length' }])
    })

    test.each([true, false])('n of one prompt share its full blocks (prefix cache: %s)', async (enablePrefixCaching) => {
      setUp({ enablePrefixCaching, maxNumBatchedTokens: 16 })
      const computed = countTokens()
      const r = request('a', prompt(40), { n: 4, temperature: 1, seed: 3 })
      core.add(r)
      const { of } = await drain()
      for (let i = 0; i < 4; i++) expect(tokensOf(of('a', i))).toEqual(alone(r, i).tokenIds)
      expect(new Set([0, 1, 2, 3].map((i) => String(tokensOf(of('a', i))))).size).toBe(4)
      // 32 of the 40 are shared; the last of 8 new tokens is never computed.
      const least = 40 + 3 * 8 + 4 * 7
      // Rows of padding count too, a step's worth of them; not sharing would be 96 more.
      if (overlap) {
        expect(computed()).toBeGreaterThanOrEqual(least)
        expect(computed()).toBeLessThan(least + 32)
      } else expect(computed()).toBe(least)
    })

    test('depend on the seed alone, not on the crowd', async () => {
      setUp()
      const r = request('a', prompt(10), { temperature: 1, seed: 42, maxTokens: 20 })
      core.add(r)
      const first = tokensOf((await drain()).of('a'))
      for (let i = 0; i < 9; i++) core.add(request(`b${i}`, prompt(10, i + 2), { temperature: 1, maxTokens: 20 }))
      core.add(r)
      core.add({ ...r, id: 'other', params: { ...r.params, seed: 43 } })
      const { of } = await drain()
      expect(tokensOf(of('a'))).toEqual(first)
      expect(tokensOf(of('other'))).not.toEqual(first)
    })

    test('without a seed differ from each other, and follow the engine’s seed', async () => {
      const runs: number[][] = []
      for (const seed of [null, null, 7, 7]) {
        setUp({ seed })
        for (const id of ['a', 'b']) core.add(request(id, prompt(10), { temperature: 1, maxTokens: 20 }))
        const { of } = await drain()
        expect(tokensOf(of('a'))).not.toEqual(tokensOf(of('b')))
        runs.push(tokensOf(of('a')))
        core.close()
      }
      expect(runs[0]).not.toEqual(runs[1])
      expect(runs[2]).toEqual(runs[3])
      setUp()
    })

    test.each<[LayerKind[]]>([[[...KINDS]], [[{ window: 20 }, { window: 0 }]], [['state', { window: 24 }]]])(
      'are the same after everything was preempted, at any time: %j',
      async (kinds) => {
        setUp({ maxNumBatchedTokens: 9 }, kinds)
        const requests = [
          request('a', prompt(30), { maxTokens: 20 }),
          request('b', prompt(33, 2), { maxTokens: 20, temperature: 1, seed: 1, repetitionPenalty: 1.2 }),
        ]
        for (const r of requests) core.add(r)
        const got = new Map<string, number[]>([
          ['a', []],
          ['b', []],
        ])
        for (let i = 0; core.hasWork; i++) {
          for (const o of (await core.step()).outputs) got.get(o.requestId)!.push(...o.tokenIds)
          if (i % 11 === 10) core.preemptAll()
        }
        for (const r of requests) expect(got.get(r.id)).toEqual(runAlone(r, 0, kinds, LIMITS).tokenIds)
        core.assertBalanced()
        expect(core.stats().preemptions).toBeGreaterThan(3)
      },
    )
  })

  describe('the prefix cache', () => {
    const cached = async (r: EngineRequest): Promise<number> => {
      core.add(r)
      const { of } = await drain()
      expect(tokensOf(of(r.id))).toEqual(alone(r).tokenIds)
      return of(r.id)[0]!.cachedTokens!
    }

    test('gives full blocks, and leaves at least one token to compute', async () => {
      setUp()
      expect(await cached(request('a', prompt(40)))).toBe(0)
      expect(await cached(request('b', prompt(40)))).toBe(32)
      expect(await cached(request('c', prompt(32)))).toBe(16)
      expect(await cached(request('d', [...prompt(40).slice(0, 20), 1, 2, 3]))).toBe(16)
      expect(await cached(request('e', [63, ...prompt(40).slice(1)]))).toBe(0)
      expect(core.stats()).toMatchObject({ prefixQueryTokens: 40 + 40 + 32 + 23 + 40, prefixHitTokens: 64 })
    })

    test('holds answers too', async () => {
      setUp()
      const first = request('a', prompt(30), { maxTokens: 20 })
      await cached(first)
      expect(await cached(request('b', [...prompt(30), ...alone(first).tokenIds.slice(0, 10), 1]))).toBe(32)
    })

    test('is not shared across salts, nor classes of sequences, and can be dropped or left out', async () => {
      setUp()
      await cached(request('a', prompt(60)))
      expect(await cached(request('b', prompt(60), {}, { cacheSalt: 'x' }))).toBe(0)
      expect(await cached(request('c', prompt(60), {}, { cacheSalt: 'x' }))).toBe(48)
      // Longer than 70 is another class in this model.
      expect(await cached(request('d', [...prompt(60), ...prompt(20, 3)]))).toBe(0)
      core.resetPrefixCache()
      expect(await cached(request('e', prompt(60)))).toBe(0)
      core.close()
      setUp({ enablePrefixCaching: false })
      await cached(request('a', prompt(60)))
      expect(await cached(request('b', prompt(60)))).toBe(0)
    })

    test('keeps the beginnings longest when blocks are short', async () => {
      setUp({ kvCacheBytes: BLOCK * 9, maxModelLen: 120 })
      await cached(request('a', prompt(65), { maxTokens: 1 }))
      await cached(request('b', prompt(80, 2), { maxTokens: 1 }))
      // Eight blocks: b took its five from those that hold nothing, and from the end of a.
      expect(await cached(request('c', prompt(65), { maxTokens: 1 }))).toBeGreaterThanOrEqual(32)
    })

    test('in a window group, what fell out of the window is needed no more', async () => {
      const kinds: readonly LayerKind[] = [{ window: 20 }]
      setUp({ kvCacheBytes: BLOCK * 9, maxNumBatchedTokens: 16, maxNumSeqs: 2 }, kinds)
      const r = request('a', prompt(200))
      core.add(r)
      const { of } = await drain()
      // Four blocks at a time are enough for 200 tokens.
      expect(tokensOf(of('a'))).toEqual(runAlone(r, 0, kinds, LIMITS).tokenIds)
      core.add({ ...r, id: 'c' })
      const again = (await drain()).of('c')
      expect(tokensOf(again)).toEqual(tokensOf(of('a')))
      expect(again[0]!.cachedTokens).toBe(192)
    })
  })

  describe('log-probabilities', () => {
    test('are the model’s own, before penalties, bias and temperature', async () => {
      setUp({ maxLogitsBytes: VOCAB * 4 * 2 })
      const params = { logprobs: 3, temperature: 0.7, seed: 9, repetitionPenalty: 1.5, logitBias: { 7: 4 }, maxTokens: 6 }
      const requests = [
        request('a', prompt(20), params),
        request('b', prompt(9), { logprobs: 0 }),
        request('c', prompt(5), { presencePenalty: 1 }),
        request('d', prompt(7)),
      ]
      for (const r of requests) core.add(r)
      const { of } = await drain()
      for (const r of requests) {
        expect(tokensOf(of(r.id))).toEqual(alone(r).tokenIds)
        const model = new Alone(KINDS, r.promptTokenIds.length)
        let logits = new Float32Array()
        for (const token of r.promptTokenIds) logits = model.push(token) as typeof logits
        for (const output of of(r.id)) {
          const { logprobs, order } = logprobRow(logits)
          const [token] = output.tokenIds as [number]
          if (r.params.logprobs === null) expect(output.logprobs).toBeUndefined()
          else
            expect(output.logprobs).toEqual([
              {
                tokenId: token,
                logprob: Math.fround(logprobs[token]!),
                rank: order.indexOf(token) + 1,
                top: order.slice(0, r.params.logprobs).map((id) => ({ tokenId: id, logprob: Math.fround(logprobs[id]!) })),
              },
            ])
          logits = model.push(token) as typeof logits
        }
      }
    })

    test.each([{ maxNumBatchedTokens: 7 }, { maxNumBatchedTokens: 512 }])(
      'of the prompt: every token but the first, in chunks too: %j',
      async (options) => {
        setUp({ ...options, maxLogitsBytes: VOCAB * 4 * 5 })
        core.add(request('warm', prompt(40)))
        await drain()
        core.add(request('a', prompt(40), { promptLogprobs: 2, n: 2 }))
        const { outputs: early } = await core.step()
        core.preemptAll()
        const { of } = await drain([...early])
        const outputs = [...of('a'), ...of('a', 1)]
        expect(outputs.filter((o) => o.promptLogprobs)).toHaveLength(1)
        const [output] = of('a')
        expect(output!.cachedTokens).toBe(0)
        const model = new Alone(KINDS, 40)
        const expected = prompt(40).map((token, i, all) => {
          const { logprobs, order } = logprobRow(model.push(token))
          const next = all[i + 1]!
          return {
            tokenId: next,
            logprob: Math.fround(logprobs[next]!),
            rank: order.indexOf(next) + 1,
            top: order.slice(0, 2).map((id) => ({ tokenId: id, logprob: Math.fround(logprobs[id]!) })),
          }
        })
        expect(output!.promptLogprobs).toEqual([null, ...expected.slice(0, -1)])
      },
    )

    test('returnLogits gives every row of the prompt and generates nothing', async () => {
      setUp({ maxModelLen: 50, maxNumBatchedTokens: 7, maxLogitsBytes: VOCAB * 4 * 3 })
      core.add(request('a', prompt(50), { n: 3, promptLogprobs: 0 }, { returnLogits: true }))
      core.add(request('b', prompt(20)))
      const { of } = await drain()
      const [output, ...more] = of('a')
      expect(more).toEqual([])
      expect(output).toMatchObject({ tokenIds: [], finishReason: 'length', promptLogprobs: { length: 50 } })
      const model = new Alone(KINDS, 50)
      expect(output!.logits).toEqual(Float32Array.from(prompt(50).flatMap((token) => Array.from(model.push(token)))))
      expect(tokensOf(of('b'))).toHaveLength(8)
    })
  })

  describe('what is refused', () => {
    test.each<[string, object, string, string]>([
      ['an empty prompt', { promptTokenIds: [] }, 'BAD_REQUEST', 'request "a": the prompt is empty; it needs at least one token'],
      [
        'a token beyond the vocabulary',
        { promptTokenIds: [1, VOCAB] },
        'BAD_REQUEST',
        'request "a": prompt token 1 is 64; ids go from 0 to 63',
      ],
      ['a token that is none', { promptTokenIds: [1, 2, 0.5] }, 'BAD_REQUEST', 'request "a": prompt token 2 is 0.5; ids go from 0 to 63'],
      ['a prompt that is none', { promptTokenIds: 'abc' }, 'BAD_REQUEST', 'request "a": promptTokenIds should be a list of token ids'],
      ['no id', { id: undefined }, 'BAD_REQUEST', 'a request should be an object with an `id`'],
      ['a priority that is none', { priority: Number.NaN }, 'BAD_REQUEST', 'request "a": priority should be a number, is NaN'],
      ['a salt that is none', { cacheSalt: 1 }, 'BAD_REQUEST', 'request "a": cacheSalt should be a string'],
      ['n of 10^9', { params: { n: 1e9 } }, 'BAD_SAMPLING_PARAMS', 'n should be a whole number from 1 to 64, is 1000000000'],
      [
        'a bias beyond the vocabulary',
        { params: { logitBias: { 64: 1 } } },
        'BAD_SAMPLING_PARAMS',
        'logitBias should have token ids from 0 to 63 as keys, has "64", is {"64":1}',
      ],
      [
        'a prompt without room for an answer',
        { promptTokenIds: prompt(512) },
        'SEQUENCE_TOO_LONG',
        'request "a": the prompt has 512 tokens, at most 511 fit: the model\'s context is 512 here, answer included. Shorten the prompt or raise --max-model-len.',
      ],
    ])('%s', async (_, change, code, message) => {
      setUp()
      expect(() => core.add({ ...request('a', [1]), ...change } as EngineRequest)).toThrow(expect.objectContaining({ code, message }))
      expect(core.hasWork).toBe(false)
      core.assertBalanced()
    })

    test('an id that is in use', () => {
      setUp()
      core.add(request('a', [1]))
      expect(() => core.add(request('a', [1]))).toThrow('there is a request "a" already')
    })

    test('options that are wrong', () => {
      setUp()
      const make = (options: object) => () => new EngineCore({ model, device, ...options })
      expect(make({ maxNumSeq: 1 })).toThrow('the engine has no option "maxNumSeq". Did you mean "maxNumSeqs"?')
      expect(make({ maxNumSeqs: 0 })).toThrow('maxNumSeqs should be a whole number from 1 to 65536, is 0')
      expect(make({ memoryFraction: 1.5 })).toThrow('memoryFraction should be more than 0 and at most 1, is 1.5')
      expect(make({ maxModelLen: 1000 })).toThrow('maxModelLen is 1000; the model goes up to 512 tokens')
      expect(make({ maxModelLen: 500, kvCacheBytes: BLOCK * 11 })).toThrow(
        'one sequence of 500 tokens needs 32 blocks, 10 fit. Lower --max-model-len or raise --memory-fraction.',
      )
      const small = new EngineCore({ model, device, kvCacheBytes: BLOCK * 11 })
      cores.push(small)
      expect(small.maxModelLen).toBe(160)
    })
  })

  describe('trouble', () => {
    test('a step that fails takes its own requests and nobody else', async () => {
      setUp({ maxNumSeqs: 2 })
      const bad = 13
      model.onForward = (step) => {
        if (device.i32(step.inputIds).includes(bad)) throw new Error('kernel panic')
      }
      const clean = (r: EngineRequest) => !r.promptTokenIds.includes(bad) && !alone(r).tokenIds.includes(bad)
      const good = Array.from({ length: 40 }, (_, i) =>
        request(
          `g${i}`,
          prompt(20, i + 1).map((t) => (t === bad ? 0 : t)),
        ),
      ).filter(clean)
      expect(good.length).toBeGreaterThan(3)
      core.add(request('x', [...prompt(40).map((t) => (t === bad ? 0 : t)), bad]))
      for (const r of good) core.add(r)
      const { of, failures } = await drain()
      // One of the good ones was in the same step.
      expect(failures).toEqual([
        { requestId: 'x', code: 'STEP_FAILED', message: 'a step with request "x" in it failed: kernel panic' },
        { requestId: good[0]!.id, code: 'STEP_FAILED', message: `a step with request "${good[0]!.id}" in it failed: kernel panic` },
      ])
      for (const r of good.slice(1)) expect(tokensOf(of(r.id))).toEqual(alone(r).tokenIds)
      // What the broken step may have written is nobody's prefix.
      model.onForward = () => {}
      core.add(request('again', [...prompt(40).map((t) => (t === bad ? 0 : t)), bad]))
      expect((await drain()).of('again')[0]!.cachedTokens).toBe(0)
    })

    test('a device that fails when it is waited for', async () => {
      setUp()
      core.add(request('a', prompt(5), { n: 3 }))
      await core.step()
      device.onSynchronize = () => {
        throw new Error('gone')
      }
      core.add(request('b', prompt(5)))
      const { failures } = await drain()
      expect(failures.map((f) => f.requestId)).toEqual(['a', 'b'])
      device.onSynchronize = () => {}
      core.add(request('c', prompt(5)))
      expect(tokensOf((await drain()).of('c'))).toHaveLength(8)
    })

    test('logits that are not numbers fail their own request', async () => {
      setUp()
      const logits = model.logits.bind(model)
      model.logits = (hidden, step) => {
        const out = logits(hidden, step)
        if (out.dim(0) === 2) (out.kernels as FakeKernels).run(() => device.f32(out.narrow(0, 1, 1)).fill(Number.NaN))
        return out
      }
      core.add(request('a', prompt(5)))
      core.add(request('b', prompt(6)))
      const { of, failures } = await drain()
      expect(tokensOf(of('a'))).toEqual(alone(request('a', prompt(5))).tokenIds)
      expect(failures).toMatchObject([
        { requestId: 'b', code: 'STEP_FAILED', message: expect.stringContaining('its logits are not numbers') },
      ])
    })

    test('abort ends every answer that has no end, begun or not, and frees the blocks', async () => {
      setUp({ maxNumBatchedTokens: 8 })
      core.add(request('a', prompt(40), { n: 3 }))
      core.add(request('b', prompt(10)))
      await core.step()
      core.abort('a')
      core.abort('unknown')
      const { of } = await drain()
      for (let i = 0; i < 3; i++)
        expect(of('a', i)).toEqual([{ requestId: 'a', index: i, tokenIds: [], finishReason: 'abort', stopReason: null }])
      expect(tokensOf(of('b'))).toHaveLength(8)
    })

    test('an abort while the device computes waits for the step', async () => {
      setUp()
      core.add(request('a', prompt(40)))
      const step = core.step()
      core.abort('a')
      expect(core.stats().cacheBlocksUsed).toBe(3)
      expect((await step).outputs.map((o) => o.finishReason)).toEqual([null, 'abort'])
      core.assertBalanced()
    })

    test('one that could not be enqueued leaves the one before it alone', async () => {
      setUp({ maxNumSeqs: 3 })
      const a = request('a', prompt(20))
      core.add(a)
      const outputs = [...(await core.step()).outputs]
      const forward = model.forward.bind(model)
      model.forward = () => {
        throw new Error('no kernel for this shape')
      }
      core.add(request('b', prompt(30)))
      core.add(request('c', prompt(5)))
      const events = await core.step()
      model.forward = forward
      const { of, failures } = await drain(outputs)
      // Whoever was in the step fails; with what it had been given before.
      const failed = [...events.failures, ...failures].map((f) => f.requestId)
      expect(failed).toContain('b')
      outputs.push(...events.outputs)
      const got = tokensOf(of('a'))
      expect(got).toEqual(alone(a).tokenIds.slice(0, got.length))
      core.add({ ...a, id: 'again' })
      expect(tokensOf((await drain()).of('again'))).toEqual(alone(a).tokenIds)
    })

    test('closed with steps under way, it waits for them and gives everything back', async () => {
      setUp()
      core.add(request('a', prompt(20), { maxTokens: 100 }))
      await core.step()
      await core.step()
      core.close()
      expect(device.allocated.size).toBe(0)
    })

    test('a closed engine says so', async () => {
      setUp()
      core.close()
      core.close()
      expect(() => core.add(request('a', [1]))).toThrow('the engine is closed')
      await expect(core.step()).rejects.toThrow('the engine is closed')
    })
  })

  describe('a step', () => {
    test('of the same shape has the same addresses, and crosses to the device once', async () => {
      setUp()
      // Three sequences are padded to four where few graphs are to serve all batches.
      const rows = overlap ? 4 : 3
      const seen: unknown[] = []
      model.onForward = (step) => {
        const [meta] = step.attnMetadata
        if (step.inputIds.size === rows && meta?.kind === 'paged')
          seen.push([step.inputIds, step.positions, step.logitRows, meta.slots, meta.pageTables].map((t) => [t.address, t.shape]))
      }
      for (let i = 0; i < 3; i++) core.add(request(`r${i}`, prompt(20 + i, i + 1), { maxTokens: 40 }))
      await drain()
      expect(seen).toHaveLength(39)
      expect(device.uploads).toBe(40)
      for (const addresses of seen) expect(addresses).toEqual(seen[0])
    })

    test('runs no kernel that no row needs', async () => {
      setUp()
      core.add(request('a', prompt(20)))
      core.add(request('b', prompt(20), { temperature: 1 }))
      await drain()
      // Where steps overlap: tokens of the last step go into the next one, and those that were walked to are kept for it.
      expect(device.calls).toEqual(overlap ? { sample: 8, feedTokens: 7, copy: 2 } : { sample: 8 })
    })

    test('keeps a ledger', () => {
      setUp({ maxNumBatchedTokens: 32, maxNumSeqs: 4, weightBytes: 123 }, [{ window: 0 }, { window: 48 }, 'state'])
      const { ledger } = core
      const windowBlocks = 4 * 6
      expect(ledger).toMatchObject({ total: 64 << 20, weights: 123, cacheTokens: 128 * 16 })
      expect(ledger.groups).toEqual([
        { kind: 'paged', layers: 1, blocks: 128, blockBytes: 64, window: 0 },
        { kind: 'paged', layers: 1, blocks: windowBlocks, blockBytes: 64, window: 48 },
        { kind: 'state', layers: 1, blocks: 4, blockBytes: 4, window: 0 },
      ])
      expect(ledger.cache).toBe((129 + windowBlocks + 1) * 64 + 5 * 4)
      expect(ledger.workspace).toBeGreaterThan(4096)
    })
  })
})
