import type { SamplingParams } from './params.ts'

/** What the sampler needs to know of a request's parameters, worked out once. */
export interface SamplingPlan {
  readonly params: SamplingParams
  readonly greedy: boolean
  /** Any of the three penalties. */
  readonly penalized: boolean
  /** Only repetition looks at the prompt. */
  readonly penalizesPrompt: boolean
  /** logitBias, sorted by id. */
  readonly biasIds: Int32Array
  readonly biasValues: Float32Array
  /** What may not come before minTokens: the tokens that would end the answer. */
  readonly bannedIds: Int32Array
  /** End tokens of the model that count. */
  readonly eosIds: ReadonlySet<number>
  readonly stopIds: ReadonlySet<number>
  /** How many of the likeliest tokens to report; -1: no log-probabilities at all. Never more than the vocabulary. */
  readonly logprobs: number
  readonly promptLogprobs: number
}

export function samplingPlan(params: SamplingParams, eosTokenIds: readonly number[], vocabSize: number): SamplingPlan {
  const eosIds = new Set(params.ignoreEos ? [] : eosTokenIds)
  const stopIds = new Set(params.stopTokenIds)
  const bias = Object.entries(params.logitBias).map(([id, value]) => [Number(id), value] as const)
  const banned = new Set([...eosIds, ...stopIds])
  const penalizesPrompt = params.repetitionPenalty !== 1
  return {
    params,
    greedy: params.temperature === 0,
    penalized: penalizesPrompt || params.presencePenalty !== 0 || params.frequencyPenalty !== 0,
    penalizesPrompt,
    biasIds: Int32Array.from(bias, ([id]) => id),
    biasValues: Float32Array.from(bias, ([, value]) => value),
    bannedIds: Int32Array.from(banned).filter((id) => id < vocabSize),
    eosIds,
    stopIds,
    logprobs: params.logprobs === null ? -1 : Math.min(params.logprobs, vocabSize),
    promptLogprobs: params.promptLogprobs === null ? -1 : Math.min(params.promptLogprobs, vocabSize),
  }
}

/**
 * Two words of a seed of its own for each answer of a request. The kernel adds the token's place in its sequence, so a draw
 * depends on nothing but the request.
 */
export function seedWords(seed: number, answer: number): readonly [low: number, high: number] {
  const mixed = splitMix64(splitMix64(BigInt(seed)) + BigInt(answer))
  return [Number(BigInt.asIntN(32, mixed)), Number(BigInt.asIntN(32, mixed >> 32n))]
}

/** The seed of the request that arrives as number `arrival` and brings none. */
export const derivedSeed = (seed: number, arrival: number): number =>
  Number(BigInt.asUintN(53, splitMix64(BigInt(seed) ^ splitMix64(BigInt(arrival)))))

/** The output function of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input moves half of the output's. */
function splitMix64(value: bigint): bigint {
  let z = BigInt.asUintN(64, value + 0x9e3779b97f4a7c15n)
  z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n)
  z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn)
  return z ^ (z >> 31n)
}
