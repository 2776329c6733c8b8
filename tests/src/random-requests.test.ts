import { modelPath } from '@aphrodite/demo-model'
import type { SamplingParams } from '@aphrodite/llm'
import { LLM } from '@aphrodite/llm'
import { expect, test } from 'vitest'

const REQUESTS = 5000

/** A seeded generator: the same requests in every run. */
function generator(seed: number): (n: number) => number {
  let state = seed
  return (n) => {
    state = (state + 0x9e3779b9) >>> 0
    let z = state
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
    return ((z ^ (z >>> 16)) >>> 0) % n
  }
}

interface Request {
  readonly prompt: readonly number[]
  readonly params: Partial<SamplingParams>
  /** Tokens after which the client goes away; null: it stays. */
  readonly abortAfter: number | null
}

function randomRequest(random: (n: number) => number, prefixes: readonly (readonly number[])[]): Request {
  const shared = random(3) > 0 ? prefixes[random(prefixes.length)]! : []
  const own = Array.from({ length: 1 + random(random(10) === 0 ? 120 : 24) }, () => 3 + random(2000))
  const greedy = random(2) === 0
  // A few of these at once outgrow the cache.
  const long = random(16) === 0
  return {
    prompt: [...shared, ...own],
    params: {
      maxTokens: long ? 100 + random(100) : 2 + random(12),
      ignoreEos: long || random(4) > 0,
      ...(greedy
        ? { temperature: 0 }
        : {
            temperature: 0.5 + random(10) / 10,
            seed: random(1000),
            topK: random(3) * 20,
            topP: random(2) ? 0.9 : 1,
            minP: random(4) ? 0 : 0.05,
          }),
      ...(!long && random(6) === 0 && { stopTokenIds: [16, 14, 3 + random(300)] }),
      ...(random(6) === 0 && { repetitionPenalty: 1.2, presencePenalty: 0.3, frequencyPenalty: 0.2 }),
      ...(random(8) === 0 && { minTokens: 2 }),
      ...(random(8) === 0 && { logitBias: { [3 + random(300)]: 5 } }),
      ...(random(20) === 0 && { n: 2 }),
    },
    abortAfter: random(8) === 0 ? random(4) : null,
  }
}

/** The tokens of each answer; of an aborted one those that came before it. */
async function ask(llm: LLM, { prompt, params, abortAfter }: Request): Promise<number[][]> {
  const answers: number[][] = Array.from({ length: params.n ?? 1 }, () => [])
  if (abortAfter === 0) return answers
  let seen = 0
  for await (const delta of llm.stream({ promptTokenIds: prompt }, params)) {
    answers[delta.index]!.push(...delta.tokenIds)
    seen += delta.tokenIds.length
    if (abortAfter !== null && seen >= abortAfter) break
  }
  return answers
}

test(`${REQUESTS} overlapping requests on a small cache: each one's tokens are those of its own run alone`, async () => {
  const random = generator(20261124)
  const prefixes = Array.from({ length: 12 }, () => Array.from({ length: 16 + random(100) }, () => 3 + random(2000)))
  const requests = Array.from({ length: REQUESTS }, () => randomRequest(random, prefixes))

  // Small: about 30 blocks of 16 tokens, which half a dozen sequences fill.
  const crowd = await LLM.create({
    device: 'cpu',
    model: modelPath,
    dtype: 'bfloat16',
    skipTokenizerInit: true,
    maxModelLen: 320,
    maxNumSeqs: 24,
    maxNumBatchedTokens: 96,
    kvCacheBytes: 30 * 16 * 8 * 2 * 2 * 64 * 2,
  })
  const results: number[][][] = new Array(REQUESTS)
  let next = 0
  const client = async () => {
    while (next < REQUESTS) {
      const i = next++
      results[i] = await ask(crowd, requests[i]!)
    }
  }
  await Promise.all(Array.from({ length: 40 }, client))
  const stats = await crowd.stats()
  expect(stats.running + stats.waiting).toBe(0)
  expect(stats.cacheBlocksUsed, 'every block is free again').toBe(0)
  expect(stats.preemptions).toBeGreaterThan(0)
  expect(stats.prefixHitTokens).toBeGreaterThan(0)
  await crowd.close()

  const alone = await LLM.create({
    device: 'cpu',
    model: modelPath,
    dtype: 'bfloat16',
    skipTokenizerInit: true,
    maxModelLen: 320,
    maxNumSeqs: 2,
    enablePrefixCaching: false,
    kvCacheBytes: 64 << 20,
  })
  for (const [i, request] of requests.entries()) {
    const got = results[i]!
    const want = await ask(alone, { ...request, abortAfter: null })
    // An aborted answer is a beginning of the whole one.
    for (const [a, tokens] of got.entries())
      expect(tokens, `request ${i}, answer ${a}`).toEqual(request.abortAfter === null ? want[a] : want[a]!.slice(0, tokens.length))
  }
  await alone.close()
}, 600_000)
