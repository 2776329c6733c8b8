import { type EngineRequest, type FinishReason, resolveSamplingParams } from '../src/index.ts'
import { seedWords } from '../src/sampling-plan.ts'
import { penalizeRow, sampleRow } from './fake-device.ts'
import { Alone, type LayerKind } from './fake-model.ts'

export interface Answer {
  readonly tokenIds: readonly number[]
  readonly finishReason: FinishReason
}

/** What a request should give, one answer at a time, from the definition of its parameters. */
export function runAlone(
  request: EngineRequest,
  index: number,
  kinds: readonly LayerKind[],
  limits: { maxModelLen: number; eosTokenIds: readonly number[] },
): Answer {
  const p = resolveSamplingParams(request.params)
  const prompt = request.promptTokenIds
  const model = new Alone(kinds, prompt.length)
  const [low, high] = seedWords(p.seed ?? 0, index)
  let logits = new Float32Array()
  for (const token of prompt) logits = model.push(token) as typeof logits
  const output: number[] = []
  if (p.maxTokens === 0) return { tokenIds: output, finishReason: 'length' }
  const ends = [...(p.ignoreEos ? [] : limits.eosTokenIds), ...p.stopTokenIds]
  for (;;) {
    penalizeRow(logits, p.repetitionPenalty === 1 ? [] : prompt, output, p.repetitionPenalty, p.presencePenalty, p.frequencyPenalty)
    for (const [id, bias] of Object.entries(p.logitBias)) logits[Number(id)]! += bias
    if (output.length < p.minTokens) for (const id of ends) logits[id] = Number.NEGATIVE_INFINITY
    const token = sampleRow(logits, p.temperature, p.topK, [low, high, prompt.length + output.length])
    output.push(token)
    if (output.length >= p.minTokens && ends.includes(token)) return { tokenIds: output, finishReason: 'stop' }
    if (output.length === p.maxTokens || prompt.length + output.length === limits.maxModelLen)
      return { tokenIds: output, finishReason: 'length' }
    logits = model.push(token) as typeof logits
  }
}
