import { type NamedTensors, readTensors } from './tensors-file.ts'
import type { LanguageModel } from './types.ts'

export interface PromptReport {
  readonly index: number
  readonly tokens: number
  /** ‖logits − reference‖ / ‖reference‖ at the worst reference row; null when it was not compared. */
  readonly error: number | null
  /** `24 of 24`: how many greedy tokens had to be equal, and were. */
  readonly greedy: string
  readonly passed: boolean
  readonly note?: string
}

export interface VerifyReport {
  readonly tolerance: number
  readonly gap: number
  readonly passed: boolean
  readonly prompts: readonly PromptReport[]
}

/**
 * Compares a model with a reference file: for k = 0, 1, … `prompt.k` i32 [n], `logits.k` f32 [n or 1, vocab] (one row: the
 * last), `greedy.k` i32 [m], `gap.k` f32 [m]. In float32 every row must be within 1e-4 and greedy tokens equal up to the
 * first whose two best logits lie within 1e-3; in 16-bit types within 3e-2 and 0.1.
 */
export async function verifyReference(llm: LanguageModel, file: string): Promise<VerifyReport> {
  const tensors = readTensors(file)
  const exact = llm.info.dtype === 'float32'
  const [tolerance, gap] = exact ? [1e-4, 1e-3] : [3e-2, 0.1]
  const prompts: PromptReport[] = []
  for (let index = 0; tensors.has(`prompt.${index}`); index++) prompts.push(await verifyPrompt(llm, tensors, index, tolerance, gap))
  return { tolerance, gap, prompts, passed: prompts.length > 0 && prompts.every((p) => p.passed) }
}

async function verifyPrompt(
  llm: LanguageModel,
  tensors: NamedTensors,
  index: number,
  tolerance: number,
  gapLimit: number,
): Promise<PromptReport> {
  const prompt = tensors.ints(`prompt.${index}`)
  const greedy = tensors.ints(`greedy.${index}`)
  const gaps = tensors.floats(`gap.${index}`)
  const bound = llm.info.lengthBound
  if (bound !== null && prompt.length > bound) {
    const note = `longer than ${bound} tokens, beyond which this model's frequencies depend on the length in a way that no cache can follow`
    return { index, tokens: prompt.length, error: null, greedy: 'not compared', passed: true, note }
  }
  const error = await worstError(llm, prompt, tensors.floats(`logits.${index}`))
  const comparable = gaps.findIndex((g) => g < gapLimit)
  const count = comparable < 0 ? greedy.length : comparable
  const [result] = await llm.generate({ promptTokenIds: prompt }, { temperature: 0, maxTokens: greedy.length, ignoreEos: true })
  const got = result?.outputs[0]?.tokenIds ?? []
  const wrong = greedy.findIndex((id, i) => i < count && got[i] !== id)
  return {
    index,
    tokens: prompt.length,
    error,
    greedy: `${wrong < 0 ? count : wrong} of ${count}`,
    passed: error <= tolerance && wrong < 0,
    ...(count < greedy.length && { note: `from step ${count} on the two best logits are too close to tell` }),
  }
}

/** Rows of `reference` stand for the last rows of the prompt. NaN counts as infinitely wrong. */
async function worstError(llm: LanguageModel, prompt: readonly number[], reference: Float32Array): Promise<number> {
  const { shape, data } = await llm.logits(prompt)
  const [rows, vocab] = shape
  const from = rows - reference.length / vocab
  let worst = 0
  for (let r = from; r < rows; r++) {
    let difference = 0
    let norm = 0
    for (let v = 0; v < vocab; v++) {
      const want = reference[(r - from) * vocab + v]!
      difference += (data[r * vocab + v]! - want) ** 2
      norm += want ** 2
    }
    const error = Math.sqrt(difference / norm)
    worst = error <= worst ? worst : Number.isNaN(error) ? Number.POSITIVE_INFINITY : error
  }
  return Number.isInteger(from) && from >= 0 ? worst : Number.POSITIVE_INFINITY
}
