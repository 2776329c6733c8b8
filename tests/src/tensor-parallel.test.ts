import { createCpuDevice } from '@aphrodite/kernels-cpu'
import { ModelRegistry } from '@aphrodite/models'
import type { Device } from '@aphrodite/tensor'
import { createReferenceDevice, lockstep } from '@aphrodite/testing'
import { describe, expect, test } from 'vitest'
import { FIXTURES, readFixture, relativeError } from './fixture-cases.ts'
import { Runner } from '@aphrodite/testing/runner'

/** Any number of ranks up to the heads can share a model: sizes that do not divide are shared unevenly. */
const shareable = (size: number): string[] =>
  FIXTURES.filter((name) => {
    const { config, weights } = readFixture(name)
    weights.close()
    return Number(config['num_attention_heads']) >= size
  })

/** Every row of logits of a prompt, on each of `size` ranks. */
async function logitsOf(name: string, size: number, open: () => Device): Promise<Float32Array[][]> {
  const { config, weights, prompts } = readFixture(name)
  const models = await Promise.all(Array.from({ length: size }, () => ModelRegistry.create(config)))
  const devices = Array.from({ length: size }, open)
  const runners = new Map<number, Runner>()
  try {
    return lockstep(size, (tp) => {
      const runner = runners.get(tp.rank) ?? new Runner(models[tp.rank]!, weights, devices[tp.rank]!, { dtype: 'f32', tp })
      runners.set(tp.rank, runner)
      return runner.logits(prompts[0]!.prompt)
    })
  } finally {
    for (const runner of runners.values()) runner.close()
    for (const device of devices) device.close()
    weights.close()
  }
}

/** A rank's program runs again for each of its collectives, so one short prompt has to do; the model is whole. */
describe.each<[number, string, () => Device]>([
  [2, 'reference', createReferenceDevice],
  [2, 'cpu', () => createCpuDevice({ threads: 1, pin: false })],
  [3, 'cpu', () => createCpuDevice({ threads: 1, pin: false })],
  [4, 'cpu', () => createCpuDevice({ threads: 1, pin: false })],
])('on %i ranks in lockstep, %s', (size, _, open) => {
  test.each(shareable(size))('%s gives the logits of one rank, and of Hugging Face', async (name) => {
    const alone = (await logitsOf(name, 1, open))[0]!
    const { weights, prompts } = readFixture(name)
    weights.close()
    for (const rows of await logitsOf(name, size, open)) {
      expect(rows.length).toBe(alone.length)
      const worst = rows.reduce((most, row, i) => Math.max(most, relativeError(row, alone[i]!)), 0)
      expect(worst).toBeLessThanOrEqual(1e-5)
      for (const [position, expected] of prompts[0]!.logits) expect(relativeError(rows[position]!, expected)).toBeLessThanOrEqual(1e-4)
    }
  })
})
