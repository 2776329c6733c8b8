import { createCpuDevice } from '@aphrodite/kernels-cpu'
import type { Device } from '@aphrodite/tensor'
import { createReferenceDevice, lazyDevice } from '@aphrodite/testing'
import { describe, expect, test } from 'vitest'
import { ANSWERS, runFixture } from './engine-runs.ts'
import { FIXTURES } from './fixture-cases.ts'

const cpu = (): Device => createCpuDevice({ threads: 2, pin: false })
const reference = (): Device => createReferenceDevice()

describe('steps that are enqueued before the last one is known give the same tokens', () => {
  test.each(FIXTURES)('%s on the CPU, on graphs padded to few shapes too', async (name) => {
    const expected = await runFixture(name, cpu(), { asyncScheduling: false })
    expect(Object.keys(expected)).toHaveLength(ANSWERS)
    expect(await runFixture(name, cpu(), { asyncScheduling: true })).toEqual(expected)
    expect(await runFixture(name, lazyDevice(cpu()), {})).toEqual(expected)
    expect(await runFixture(name, lazyDevice(cpu()), { captureAtStart: true })).toEqual(expected)
  })

  test.each(['hf/llama', 'hf/gemma3'])(
    '%s on the reference device',
    async (name) => {
      const expected = await runFixture(name, reference(), { asyncScheduling: false })
      expect(await runFixture(name, lazyDevice(reference()), {})).toEqual(expected)
    },
    120_000,
  )
})
