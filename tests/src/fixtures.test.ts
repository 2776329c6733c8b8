import { createCpuDevice } from '@aphrodite/kernels-cpu'
import { ModelRegistry } from '@aphrodite/models'
import type { Device, FloatDType } from '@aphrodite/tensor'
import { createReferenceDevice } from '@aphrodite/testing'
import { Runner } from '@aphrodite/testing/runner'
import { afterAll, describe, expect, test } from 'vitest'
import { FIXTURES, readFixture, relativeError } from './fixture-cases.ts'

/**
 * float32 leaves rounding alone. bfloat16 activations have 8 bits, and every op of a layer rounds. Hugging Face's own bfloat16 is
 * up to 2.6e-2 away, for gemma3; a residual in f32 keeps ours under 2.1e-2.
 */
const BOUNDS = { f32: { error: 1e-4, gap: 1e-3 }, bf16: { error: 3e-2, gap: 0.1 } }

const devices: readonly [string, () => Device, keyof typeof BOUNDS][] = [
  ['reference', createReferenceDevice, 'f32'],
  ['cpu', () => createCpuDevice({ threads: 2, pin: false }), 'f32'],
  ['cpu', () => createCpuDevice({ threads: 2, pin: false }), 'bf16'],
  ['cpu without vector instructions', () => createCpuDevice({ threads: 1, pin: false, isa: 'portable' }), 'f32'],
  ['cpu without vector instructions', () => createCpuDevice({ threads: 1, pin: false, isa: 'portable' }), 'bf16'],
]
const worst: string[] = []
afterAll(() => {
  if (process.env['APHRODITE_TEST_ERRORS']) console.log(worst.join('\n'))
})

describe.each(devices)('models on %s', (kind, open, dtype) => {
  test.each(FIXTURES)(`%s in ${dtype} gives the logits of Hugging Face`, async (name) => {
    const fixture = readFixture(name)
    const device = open()
    const runner = new Runner(await ModelRegistry.create(fixture.config), fixture.weights, device, { dtype: dtype as FloatDType })
    try {
      const errors: number[] = []
      for (const { prompt, logits, greedy, gap } of fixture.prompts) {
        const rows = runner.logits(prompt)
        for (const [position, expected] of logits) errors.push(relativeError(rows[position]!, expected))
        expect(same(runner.logits(prompt, 7), rows), 'chunks of 7').toBe(true)
        expect(same(runner.logits(prompt, 1), rows), 'one by one').toBe(true)
        const unsure = gap.findIndex((g) => g < BOUNDS[dtype].gap)
        const sure = unsure < 0 ? greedy.length : unsure
        expect(runner.greedy(prompt, greedy.length).slice(0, sure)).toEqual(greedy.slice(0, sure))
      }
      const most = Math.max(...errors) // NaN where one is
      worst.push(`${kind} ${dtype} ${name} ${most.toExponential(2)}`)
      expect(most).toBeLessThanOrEqual(BOUNDS[dtype].error)
    } finally {
      fixture.weights.close()
      runner.close()
      device.close()
    }
  })
})

/** To the last bit: a token's logits do not depend on what is computed beside it. */
const same = (a: readonly Float32Array[], b: readonly Float32Array[]): boolean =>
  a.length === b.length && a.every((row, i) => Buffer.compare(Buffer.from(row.buffer), Buffer.from(b[i]!.buffer)) === 0)
