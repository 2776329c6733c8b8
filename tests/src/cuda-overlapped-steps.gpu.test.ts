import { createCudaDevice } from '@aphrodite/kernels-cuda'
import { expect, test } from 'vitest'
import { ANSWERS, runFixture } from './engine-runs.ts'
import { FIXTURES } from './fixture-cases.ts'
import { describeOnCuda } from './on-cuda.ts'

describeOnCuda('steps that are enqueued before the last one is known', () => {
  // Float32, in which rounding that depends on the batch decides no draw of these.
  test.each(FIXTURES)('%s: the same tokens as one step at a time', async (name) => {
    const expected = await runFixture(name, createCudaDevice(), { asyncScheduling: false })
    expect(Object.keys(expected)).toHaveLength(ANSWERS)
    expect(await runFixture(name, createCudaDevice(), {})).toEqual(expected)
    expect(await runFixture(name, createCudaDevice(), { captureAtStart: true })).toEqual(expected)
  })
})
