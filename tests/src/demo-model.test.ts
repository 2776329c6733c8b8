import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { modelPath } from '@aphrodite/demo-model'
import { type ChatMessage, LLM } from '@aphrodite/llm'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

interface Reference {
  readonly chats: readonly { messages: ChatMessage[]; tools: unknown[] | null; prompt_ids: number[]; greedy: number[]; text: string }[]
  /** `tokens` counts the predicted ones: all but the first. */
  readonly documents: readonly { text: string; tokens: number; nll: number }[]
  readonly nll_per_token: number
}
const reference = JSON.parse(readFileSync(join(modelPath, 'reference.json'), 'utf8')) as Reference

describe('the demo model in float32', () => {
  let llm: LLM
  beforeAll(async () => {
    llm = await LLM.create({ device: 'cpu', model: modelPath, dtype: 'float32', kvCacheBytes: 64 << 20 })
  })
  afterAll(() => llm.close())

  test('renders and encodes the 24 chats as Hugging Face does', () => {
    for (const { messages, tools, prompt_ids } of reference.chats)
      expect(llm.tokenize({ messages, ...(tools && { tools }) })).toEqual(prompt_ids)
  })

  test("answers them with Hugging Face's greedy tokens and text, all at once", async () => {
    const answers = await llm.generate(
      reference.chats.map(({ messages, tools }) => ({ messages, ...(tools && { tools }) })),
      reference.chats.map(({ greedy }) => ({ temperature: 0, maxTokens: greedy.length })),
    )
    for (const [i, { greedy, text }] of reference.chats.entries()) {
      const output = answers[i]!.outputs[0]!
      expect(output.tokenIds).toEqual(greedy)
      expect(output.text).toBe(text)
    }
  })

  test('has the negative log likelihood of the reference, document by document and over all', async () => {
    let total = 0
    let tokens = 0
    const results = await llm.generate(
      reference.documents.map(({ text }) => ({ prompt: text, addSpecialTokens: false })),
      { maxTokens: 1, temperature: 0, promptLogprobs: 0 },
    )
    for (const [i, document] of reference.documents.entries()) {
      const own = -results[i]!.promptLogprobs!.reduce((sum, p) => sum + (p?.logprob ?? 0), 0)
      expect(Math.abs(own - document.nll) / document.nll).toBeLessThan(0.005)
      total += own
      tokens += document.tokens
    }
    expect(Math.abs(total / tokens / reference.nll_per_token - 1)).toBeLessThan(0.005)
  })
})
