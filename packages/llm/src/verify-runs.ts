import { AphroditeError } from '@aphrodite/tensor'
import { readTensors } from './tensors-file.ts'
import type { LanguageModel, LLMOptions } from './types.ts'

/** One way of serving the prompts of a reference, compared with one prompt at a time. */
export interface RunReport {
  /** `prefix hits` */
  readonly name: string
  readonly passed: boolean
  /** What differs first, or why it was left out. */
  readonly note?: string
}

type ClosableModel = LanguageModel & { close(): Promise<void> }

interface Answer {
  readonly tokens: readonly number[]
  readonly logprobs: readonly number[]
  /** Between the two best tokens, in nats. */
  readonly gaps: readonly number[]
}

/** On the CPU a schedule changes no bit. Elsewhere, and among ranks, it rounds: tokens are compared as long as the two best are this far apart. */
const SURE = { float32: 1e-2, other: 0.2 }
const STEPS = 16

/**
 * Serves the prompts of a reference file in all the ways that `llm` may be asked for them: one by one, in a crowd, and again, from
 * the prefix cache; then, when `llm` was closed (a model may not fit twice), by engines of their own: in chunks of 16 tokens, and
 * shared among each of `ranks`.
 * Throws what `open` throws, except for what the model or the machine cannot do: that is left out, and said so.
 */
export async function verifyRuns(
  llm: ClosableModel,
  file: string,
  open: (options: Partial<LLMOptions>) => Promise<ClosableModel>,
  ranks: readonly number[],
): Promise<RunReport[]> {
  const tensors = readTensors(file)
  const bound = llm.info.lengthBound ?? Number.POSITIVE_INFINITY
  const prompts: number[][] = []
  for (let k = 0; tensors.has(`prompt.${k}`); k++) {
    const prompt = tensors.ints(`prompt.${k}`)
    if (prompt.length + STEPS <= Math.min(bound, llm.info.maxModelLen)) prompts.push(prompt)
  }
  const sure = llm.info.dtype === 'float32' ? SURE.float32 : SURE.other
  const reports: RunReport[] = []
  const alone: Answer[] = []
  for (const prompt of prompts) alone.push(...(await answers(llm, [prompt])))
  const compare = (name: string, got: readonly Answer[], bits: boolean): void => {
    const note = differenceOf(got, alone, bits ? 0 : sure)
    reports.push({ name, passed: note === undefined, ...(note !== undefined && { note }) })
  }
  const bits = llm.info.deviceKind === 'cpu'
  compare('in a crowd', await answers(llm, prompts), bits)
  compare('once more, from the prefix cache', await answers(llm, prompts), bits)

  const longest = Math.max(...prompts.map((p) => p.length)) + STEPS
  await llm.close()
  const variants: [string, Partial<LLMOptions>, boolean][] = [
    ['in chunks of 16 tokens', { maxNumBatchedTokens: 16, maxNumSeqs: 4, maxModelLen: Math.max(longest, 16) }, bits],
    ...ranks.map((n): [string, Partial<LLMOptions>, boolean] => [`shared among ${n} ranks`, { tensorParallelSize: n }, false]),
  ]
  for (const [name, options, same] of variants) {
    try {
      const other = await open(options)
      try {
        compare(name, await answers(other, prompts), same)
      } finally {
        await other.close()
      }
    } catch (error) {
      if (!(error instanceof AphroditeError) || !['CANNOT_SHARD', 'NOT_SUPPORTED', 'NO_DEVICE', 'CACHE_TOO_SMALL'].includes(error.code))
        throw error
      reports.push({ name, passed: true, note: `left out: ${error.message}` })
    }
  }
  return reports
}

async function answers(llm: LanguageModel, prompts: readonly (readonly number[])[]): Promise<Answer[]> {
  const params = { temperature: 0, maxTokens: STEPS, ignoreEos: true, logprobs: 2 }
  const outputs = await llm.generate(
    prompts.map((promptTokenIds) => ({ promptTokenIds })),
    params,
  )
  return outputs.map(({ outputs: [answer] }) => {
    const logprobs = answer!.logprobs ?? []
    return {
      tokens: answer!.tokenIds,
      logprobs: logprobs.map((l) => l.logprob),
      gaps: logprobs.map(({ top }) => (top.length > 1 ? top[0]!.logprob - top[1]!.logprob : Number.POSITIVE_INFINITY)),
    }
  })
}

/** What differs first, in words. `sure` 0: every bit counts. */
function differenceOf(got: readonly Answer[], expected: readonly Answer[], sure: number): string | undefined {
  for (const [k, { tokens, logprobs, gaps }] of expected.entries())
    for (const [i, token] of tokens.entries()) {
      if (sure > 0 && gaps[i]! < sure) break
      const other = got[k]?.tokens[i]
      if (other !== token) return `token ${i} behind prompt ${k} is ${other} instead of ${token}`
      const off = Math.abs(got[k]!.logprobs[i]! - logprobs[i]!)
      if (sure === 0 && off !== 0)
        return `the log-probability of token ${i} behind prompt ${k} is off by ${off.toExponential(1)}; on the CPU it should have the same bits`
    }
  return undefined
}
