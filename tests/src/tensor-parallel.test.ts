import { createCpuDevice } from '@aphrodite/kernels-cpu'
import { ModelRegistry } from '@aphrodite/models'
import type { Device } from '@aphrodite/tensor'
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
describe.each<[number, string, () => Device]>([
  [2, 'reference', createReferenceDevice],
  [4, 'cpu', () => createCpuDevice({ threads: 1, pin: false })],
])('on %i ranks in lockstep, %s', (size, _, open) => {
  test.each(shareable)('%s gives the logits of Hugging Face', async (name) => {
    const { config, weights, prompts } = readFixture(name)
    const models = await Promise.all(Array.from({ length: size }, () => ModelRegistry.create(config)))
    const devices = Array.from({ length: size }, open)
    const runners = new Map<number, Runner>()
    const { prompt, logits } = prompts[0]!
    const outs = lockstep(size, (tp) => {
      const runner = runners.get(tp.rank) ?? new Runner(models[tp.rank]!, weights, devices[tp.rank]!, { dtype: 'f32', tp })
      runners.set(tp.rank, runner)
      return runner.logits(prompt)
    })
    for (const rows of outs)
      for (const [position, expected] of logits) expect(relativeError(rows[position]!, expected)).toBeLessThanOrEqual(1e-4)
    for (const runner of runners.values()) runner.close()
    for (const device of devices) device.close()
    weights.close()
  })
})
