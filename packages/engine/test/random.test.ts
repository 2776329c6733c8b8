import { lazyDevice } from '@aphrodite/testing'
import { describe, expect, test } from 'vitest'
import { EngineCore, type EngineOptions, type EngineOutput, type EngineRequest, resolveSamplingParams } from '../src/index.ts'
import { type Answer, runAlone } from './alone.ts'
import { FakeDevice } from './fake-device.ts'
import { FakeModel, type LayerKind, VOCAB } from './fake-model.ts'
import { Random } from './random.ts'

const EOS = [5]
const FULL: LayerKind = { window: 0 }
const SETTINGS: readonly {
  name: string
  kinds: readonly LayerKind[]
  requests: number
  blocks: number
  options: Partial<EngineOptions>
  captures?: boolean
  /** How often a step fails. */
  trouble?: number
}[] = [
  { name: 'full attention, chunks of 7', kinds: [FULL], requests: 1200, blocks: 16, options: { maxNumSeqs: 6, maxNumBatchedTokens: 7 } },
  {
    name: 'two layers, large steps',
    kinds: [FULL, FULL],
    requests: 1000,
    blocks: 26,
    options: { maxNumSeqs: 24, maxNumBatchedTokens: 96 },
    captures: true,
  },
  {
    name: 'full attention and a window',
    kinds: [{ window: 24 }, FULL],
    requests: 1000,
    blocks: 15,
    options: { maxNumSeqs: 12, maxNumBatchedTokens: 20 },
    captures: true,
  },
  {
    name: 'windows alone',
    kinds: [{ window: 20 }, { window: 33 }],
    requests: 800,
    blocks: 12,
    options: { maxNumSeqs: 12, maxNumBatchedTokens: 16 },
  },
  {
    name: 'a state beside pages',
    kinds: [FULL, 'state', { window: 40 }],
    requests: 500,
    blocks: 16,
    options: { maxNumSeqs: 9, maxNumBatchedTokens: 32 },
    captures: true,
  },
  { name: 'states alone', kinds: ['state'], requests: 200, blocks: 0, options: { maxNumSeqs: 5, maxNumBatchedTokens: 11 } },
  {
    name: 'no prefix cache',
    kinds: [FULL, { window: 30 }],
    requests: 500,
    blocks: 16,
    options: { maxNumSeqs: 8, maxNumBatchedTokens: 24, enablePrefixCaching: false },
  },
  {
    name: 'a device in trouble',
    kinds: [FULL, { window: 24 }],
    requests: 600,
    blocks: 20,
    options: { maxNumSeqs: 6, maxNumBatchedTokens: 24 },
    captures: true,
    trouble: 0.01,
  },
]
const MAX_MODEL_LEN = 200

/** A request of any kind that there is. */
function randomRequest(id: string, random: Random, prefixes: readonly number[][]): EngineRequest {
  const tokens = (n: number): number[] => Array.from({ length: n }, () => random.below(VOCAB))
  const prefix = random.chance(0.6) ? random.pick(prefixes) : []
  const promptTokenIds = [
    ...prefix.slice(0, random.chance(0.3) ? random.below(prefix.length + 1) : prefix.length),
    ...tokens(1 + random.below(random.chance(0.2) ? 70 : 20)),
  ]
  const sampled = random.chance(0.4)
  const maxTokens = random.chance(0.03) ? null : random.below(random.chance(0.1) ? 90 : 30)
  return {
    id,
    promptTokenIds,
    ...(random.chance(0.2) ? { cacheSalt: random.pick(['a', 'b']) } : {}),
    ...(random.chance(0.2) ? { priority: random.below(3) } : {}),
    params: resolveSamplingParams({
      temperature: sampled ? 0.5 + random.below(100) / 100 : 0,
      topK: random.chance(0.5) ? 1 + random.below(20) : 0,
      seed: random.below(1e9),
      maxTokens,
      minTokens: random.chance(0.3) && maxTokens !== null ? random.below(maxTokens + 1) : 0,
      ignoreEos: random.chance(0.3),
      stopTokenIds: random.chance(0.4) ? tokens(1 + random.below(4)) : [],
      n: random.chance(0.2) ? 2 + random.below(4) : 1,
      repetitionPenalty: random.chance(0.2) ? 1.3 : 1,
      presencePenalty: random.chance(0.1) ? 0.5 : 0,
      frequencyPenalty: random.chance(0.1) ? -0.25 : 0,
      logitBias: random.chance(0.1) ? { [random.below(VOCAB)]: 3, [random.below(VOCAB)]: -100 } : {},
      logprobs: random.chance(0.15) ? random.below(4) : null,
      promptLogprobs: random.chance(0.08) ? random.below(4) : null,
    }),
  }
}

/** How a step follows another, on a device that does it at once or puts it off; and how much of the load is tried. */
const MODES = [
  { mode: 'one step at a time', share: 1, lazy: false, asyncScheduling: false },
  { mode: 'overlapping steps', share: 0.25, lazy: false, asyncScheduling: true },
  { mode: 'overlapping steps, put off', share: 1, lazy: true, asyncScheduling: 'auto' },
  { mode: 'one step at a time, put off', share: 0.25, lazy: true, asyncScheduling: false },
] as const

describe.each(MODES)('$mode', ({ share, lazy, asyncScheduling }) => {
  test.each(SETTINGS)('$requests overlapping requests, each as alone: $name', async (setting) => {
    const { name, kinds, blocks, options, captures = false, trouble = 0 } = setting
    const requests = setting.requests * share
    const random = new Random(name.length * 7919 + requests)
    const fake = new FakeDevice({ captures })
    const device = lazy ? lazyDevice(fake) : fake
    const paged = kinds.filter((kind) => kind !== 'state').length
    const model = new FakeModel(fake, kinds, 512)
    // Before a step has written anything, or when it has written everything.
    const fail = () => {
      if (trouble > 0 && random.chance(trouble)) throw new Error('trouble')
    }
    model.onForward = fail
    fake.onSynchronize = fail
    const core = new EngineCore({
      model,
      device,
      maxModelLen: MAX_MODEL_LEN,
      eosTokenIds: EOS,
      // A block of each layer is 64 bytes here; windows take less than their share, and leave it to the others.
      kvCacheBytes: (blocks + 1) * 64 * Math.max(1, paged) + 256 * kinds.filter((kind) => kind === 'state').length,
      maxLogitsBytes: VOCAB * 4 * 5,
      asyncScheduling,
      ...options,
    })
    const prefixes = Array.from({ length: 6 }, () => Array.from({ length: 8 + random.below(90) }, () => random.below(VOCAB)))
    const alive = new Map<string, EngineRequest>()
    const got = new Map<string, Answer[]>()
    let begun = 0
    let aborts = 0
    let checked = 0
    let failed = 0

    const step = async (): Promise<void> => {
      const { outputs, failures } = await core.step()
      for (const output of outputs) deliver(output)
      if (trouble === 0) expect(failures).toEqual([])
      for (const { requestId, code } of failures) {
        expect([alive.delete(requestId), code]).toEqual([true, 'STEP_FAILED'])
        got.delete(requestId)
        failed++
      }
    }
    const deliver = (output: EngineOutput): void => {
      const answers = got.get(output.requestId) ?? []
      got.set(output.requestId, answers)
      const before = answers[output.index]
      if (before && before.finishReason !== null) throw new Error(`${output.requestId} goes on after its end`)
      answers[output.index] = {
        tokenIds: [...(before?.tokenIds ?? []), ...output.tokenIds],
        finishReason: output.finishReason as Answer['finishReason'],
      }
      const request = alive.get(output.requestId)!
      const { n, logprobs, promptLogprobs } = request.params
      if (output.tokenIds.length > 0 && logprobs !== null) {
        expect(output.logprobs?.map((l) => l.tokenId)).toEqual(output.tokenIds)
        expect(output.logprobs?.[0]?.top).toHaveLength(logprobs)
      } else if (output.logprobs) throw new Error('log-probabilities that nobody asked for')
      if (!before && answers.filter(Boolean).length === 1 && promptLogprobs !== null && output.finishReason !== 'abort') {
        expect(output.promptLogprobs?.map((l) => l?.tokenId ?? null)).toEqual([null, ...request.promptTokenIds.slice(1)])
      }
      if (answers.filter((a) => a?.finishReason).length === n) check(request, answers)
    }
    const check = (request: EngineRequest, answers: Answer[]): void => {
      for (const [index, answer] of answers.entries()) {
        const expected = runAlone(request, index, kinds, { maxModelLen: MAX_MODEL_LEN, eosTokenIds: EOS })
        const aborted = answer.finishReason === 'abort'
        const wanted = aborted ? { tokenIds: expected.tokenIds.slice(0, answer.tokenIds.length), finishReason: 'abort' } : expected
        if (JSON.stringify(answer) !== JSON.stringify(wanted)) {
          expect({ request, index, ...answer }).toEqual({ request, index, ...wanted })
        }
        checked++
      }
      alive.delete(request.id)
      got.delete(request.id)
    }
    while (begun < requests || core.hasWork) {
      // Up to 30 at a time; every now and then it runs dry.
      const crowd = Math.floor(begun / 80) % 2 === 0 ? 30 : 8
      while (begun < requests && alive.size < crowd && random.chance(0.7)) {
        const request = randomRequest(`r${begun++}`, random, prefixes)
        alive.set(request.id, request)
        core.add(request)
        if (begun % 100 === 0) break
      }
      if (random.chance(0.03) && alive.size > 0) {
        aborts++
        core.abort(random.pick([...alive.keys()]))
      }
      await step()
      if (begun % 100 === 0 && begun > 0) {
        while (core.hasWork) await step()
        expect(alive.size).toBe(0)
        core.assertBalanced()
        if (random.chance(0.3)) core.resetPrefixCache()
        if (begun < requests) {
          const request = randomRequest(`r${begun++}`, random, prefixes)
          alive.set(request.id, request)
          core.add(request)
        }
      }
    }
    core.assertBalanced()
    const stats = core.stats()
    expect(alive.size).toBe(0)
    expect(checked).toBeGreaterThanOrEqual(requests - failed)
    if (trouble > 0) expect(failed).toBeGreaterThan(20 * share * share)
    expect(failed).toBeLessThan(requests / 2)
    expect(aborts).toBeGreaterThan(0)
    if (process.env['ENGINE_STATS'])
      console.log(name, JSON.stringify(stats), 'aborts', aborts, 'failed', failed, 'calls', JSON.stringify(fake.calls))
    if (blocks > 0 && kinds[0] !== kinds[1]) expect(stats.preemptions).toBeGreaterThan((trouble > 0 ? 5 : 30) * share * share)
    if (core.options.enablePrefixCaching && !kinds.includes('state')) expect(stats.prefixHitTokens).toBeGreaterThan(1000 * share)
    const overlapping = asyncScheduling === 'auto' ? lazy : asyncScheduling
    if (overlapping) expect(fake.calls['feedTokens']).toBeGreaterThan(100 * share)
    else expect(fake.calls['feedTokens']).toBeUndefined()
    if (captures) expect(fake.replays).toBeGreaterThan(100 * share)
    core.close()
    expect(fake.graphs).toBe(0)
    expect(fake.allocated.size).toBe(0)
  })
})
