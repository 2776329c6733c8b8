import { ModelRegistry } from '@aphrodite/models'
import { createReferenceDevice, lockstep } from '@aphrodite/testing'
import { describe, expect, test } from 'vitest'
import { FIXTURES, readFixture, relativeError } from './fixture-cases.ts'
import { Runner } from './runner.ts'

/** Models whose heads and features divide; what a rank count cannot share is an error of its own. */
const shareable = FIXTURES.filter((name) => {
  const { config, weights } = readFixture(name)
  weights.close()
  const { num_attention_heads: heads, intermediate_size: inner } = config as Record<string, number>
  return heads! % 4 === 0 && inner! % 4 === 0
})

/** A rank's program runs again for each of its collectives, so one short prompt has to do; the model is whole. */
describe.each([
  [2, shareable],
  [4, shareable.filter((name) => name.startsWith('hf/'))],
])('on %i ranks in lockstep', (size, names) => {
  test.each(names)('%s gives the logits of Hugging Face', async (name) => {
    const { config, weights, prompts } = readFixture(name)
    const models = await Promise.all(Array.from({ length: size }, () => ModelRegistry.create(config)))
    const runners = new Map<number, Runner>()
    const { prompt, logits } = prompts[0]!
    const outs = lockstep(size, (tp) => {
      const runner = runners.get(tp.rank) ?? new Runner(models[tp.rank]!, weights, createReferenceDevice(), { dtype: 'f32', tp })
      runners.set(tp.rank, runner)
      return runner.logits(prompt)
    })
    for (const rows of outs)
      for (const [position, expected] of logits) expect(relativeError(rows[position]!, expected)).toBeLessThanOrEqual(1e-4)
    weights.close()
  })
})
