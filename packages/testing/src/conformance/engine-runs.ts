import { EngineCore, type EngineOptions, type EngineStats, type MemoryLedger, resolveSamplingParams } from '@aphrodite/engine'
import { createCudaDevice } from '@aphrodite/kernels-cuda'
import { unquantized } from '@aphrodite/layers'
import { Arena, type Device, PAGE_TOKENS, singleRank } from '@aphrodite/tensor'
import { lazyDevice } from '../lazy-device.ts'
import { noCuda, openCpu } from './logit-runs.ts'
import type { Material } from './material.ts'
import type { Difference, Runs } from './runs.ts'

interface Answer {
  readonly tokens: number[]
  readonly logprobs: number[]
  /** Between the two best, in nats. */
  readonly gaps: number[]
}

interface Answered {
  readonly answers: readonly Answer[]
  readonly stats: EngineStats
  readonly ledger: MemoryLedger
}

interface Setting {
  readonly prompts: readonly (readonly number[])[]
  readonly count: number
  readonly options: Partial<EngineOptions>
  /** How often everything is asked. Default once. */
  readonly rounds?: number
  /** One request at a time. Default false: all at once. */
  readonly oneByOne?: boolean
}

/** Below it a difference of rounding may make another token the best. */
const SURE = 1e-2

/** The model in the engine, on the CPU in float32, where every way of scheduling has to give the same bits; and on a GPU. */
export async function engineRuns(
  runs: Runs,
  material: Material,
  prompts: readonly (readonly number[])[],
  maxTokens: number,
  greedyOf: ((prompt: readonly number[], count: number) => number[]) | undefined,
  cuda: boolean,
): Promise<void> {
  const count = Math.max(1, Math.min(20, maxTokens - Math.max(...prompts.map((p) => p.length))))
  const base: Partial<EngineOptions> = { maxModelLen: maxTokens, kvCacheBytes: 64 << 20, enablePrefixCaching: false, seed: 1 }
  const ask = (device: () => Device, setting: Partial<Setting>): Promise<Answered> =>
    answer(material, device, { prompts, count, options: base, ...setting })

  let alone: Answered | undefined
  const first = await runs.compare('engine, one request at a time', greedyOf ? 'token by token without it' : 'nothing', 0, async () => {
    alone = await ask(openCpu, { oneByOne: true })
    for (const [k, { tokens, gaps }] of alone.answers.entries()) {
      const expected = greedyOf?.(prompts[k]!, count) ?? tokens
      const wrong = tokens.findIndex((t, i) => t !== expected[i])
      if (wrong >= 0 && gaps.slice(0, wrong + 1).every((g) => g > SURE))
        return { error: 1, where: `token ${wrong} behind prompt ${k} is ${tokens[wrong]}, and should be ${expected[wrong]}` }
    }
    return { error: 0 }
  })
  if (!first || !alone) return
  const expected = alone
  const same = (name: string, make: () => Device, setting: Partial<Setting>, happened?: (stats: EngineStats) => string | undefined) =>
    runs.compare(`engine, ${name}`, 'one request at a time', 0, async () => {
      const got = await ask(make, setting)
      const missing = happened?.(got.stats)
      return missing === undefined ? bitsOf(got, expected) : { error: Number.POSITIVE_INFINITY, where: missing }
    })

  await same('in a crowd, prompts in chunks', openCpu, { options: { ...base, maxNumSeqs: 3, maxNumBatchedTokens: 13 } })
  await same('steps that overlap', () => lazyDevice(openCpu()), { options: { ...base, maxNumBatchedTokens: 32 } })
  const { groups } = expected.ledger
  if (groups.some((g) => g.kind !== 'paged')) runs.skip('engine, prefix hits', 'a state for each sequence cannot be shared')
  else if (Math.max(...prompts.map((p) => p.length)) > 2 * PAGE_TOKENS)
    await same('prefix hits', openCpu, { rounds: 2, options: { ...base, enablePrefixCaching: true } }, (stats) =>
      stats.prefixHitTokens > 0 ? undefined : 'no token came from the prefix cache, although every prompt was asked twice',
    )
  // Enough for the longest sequence, not for two of them.
  const blocks = Math.ceil(maxTokens / PAGE_TOKENS) + 3
  const kvCacheBytes = groups.reduce((sum, g) => sum + g.blockBytes * (g.kind === 'paged' ? blocks : g.blocks), 0)
  if (groups.every((g) => g.kind === 'paged' && g.window > 0)) runs.skip('engine, preemption', 'all layers look back on a window')
  else
    await same('preemption', openCpu, { options: { ...base, kvCacheBytes } }, (stats) =>
      stats.preemptions > 0 ? undefined : `no sequence gave its blocks back, although there are no more than ${blocks}`,
    )
  const why = cuda ? noCuda() : 'it was not asked for'
  if (why === undefined)
    await runs.compare('engine on cuda, in a crowd', 'cpu, one request at a time', 0, async () =>
      tokensOf(await ask(() => createCudaDevice(), { options: { ...base, maxNumBatchedTokens: 32 } }), expected),
    )
}

async function answer(
  material: Material,
  open: () => Device,
  { prompts, count, options, rounds = 1, oneByOne }: Setting,
): Promise<Answered> {
  const device = open()
  const arena = new Arena(device, 1 << 20)
  let core: EngineCore | undefined
  try {
    const model = await material.create()
    model.materialize({ device, arena, tp: singleRank, dtype: 'f32', quantization: unquantized })
    material.load(model, material.weights)
    core = new EngineCore({ model, device, ...options })
    const answers: Answer[] = []
    for (let round = 0; round < rounds; round++)
      for (const [k, promptTokenIds] of prompts.entries()) {
        const params = resolveSamplingParams({ temperature: 0, maxTokens: count, ignoreEos: true, logprobs: 2 })
        core.add({ id: String(answers.length), promptTokenIds, params })
        answers.push({ tokens: [], logprobs: [], gaps: [] })
        if (oneByOne || k === prompts.length - 1) await finish(core, answers)
      }
    core.assertBalanced()
    return { answers, stats: core.stats(), ledger: core.ledger }
  } finally {
    core?.close()
    arena.release()
    device.close()
  }
}

async function finish(core: EngineCore, answers: readonly Answer[]): Promise<void> {
  while (core.hasWork) {
    const { outputs, failures } = await core.step()
    if (failures[0]) throw new Error(`${failures[0].code}: ${failures[0].message}`)
    for (const { requestId, tokenIds, logprobs = [] } of outputs) {
      const into = answers[Number(requestId)]!
      into.tokens.push(...tokenIds)
      for (const { logprob, top } of logprobs) {
        into.logprobs.push(logprob)
        into.gaps.push(top.length > 1 ? top[0]!.logprob - top[1]!.logprob : Number.POSITIVE_INFINITY)
      }
    }
  }
}

/** The same tokens with the same log-probabilities; `got` may have answered more than once. */
function bitsOf(got: Answered, expected: Answered): Difference {
  for (const [i, { tokens, logprobs }] of got.answers.entries()) {
    const k = i % expected.answers.length
    const want = expected.answers[k]!
    if (tokens.length !== want.tokens.length)
      return {
        error: Number.POSITIVE_INFINITY,
        where: `prompt ${k} was answered with ${tokens.length} tokens instead of ${want.tokens.length}`,
      }
    for (const [t, token] of tokens.entries()) {
      const off = Math.abs(logprobs[t]! - want.logprobs[t]!)
      if (token === want.tokens[t] && off === 0) continue
      const what =
        token === want.tokens[t] ? `has another log-probability, by ${off.toExponential(1)}` : `is ${token} instead of ${want.tokens[t]}`
      return {
        error: off || Number.POSITIVE_INFINITY,
        where: `token ${t} behind prompt ${k} ${what}; on the CPU they should have the same bits`,
      }
    }
  }
  return { error: 0 }
}

function tokensOf(got: Answered, expected: Answered): Difference {
  for (const [k, { tokens }] of got.answers.entries()) {
    const want = expected.answers[k]!
    const wrong = tokens.findIndex((token, t) => token !== want.tokens[t])
    if (wrong >= 0 && want.gaps.slice(0, wrong + 1).every((g) => g > SURE))
      return { error: 1, where: `token ${wrong} behind prompt ${k} is ${tokens[wrong]} instead of ${want.tokens[wrong]}` }
  }
  return { error: 0 }
}
