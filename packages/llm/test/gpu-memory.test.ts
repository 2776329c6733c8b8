import { describe, expect, it } from 'vitest'
import { fitting, GPU_RESERVE, shareOfFree } from '../src/gpu-memory.ts'

const GB = 1e9
const card = (total: number, free: number) => ({ description: 'cuda:0 (a card)', memory: () => ({ total: total * GB, free: free * GB }) })
/** What shareOfFree allows, in bytes. */
const allowed = (total: number, free: number, utilization: number, weights: number): number =>
  shareOfFree(card(total, free), utilization, weights * GB) * free * GB

describe('gpuMemoryUtilization', () => {
  it('counts the weights', () => expect(allowed(80, 63, 0.9, 16)).toBeCloseTo((72 - 16) * GB, 0))
  it('is of the whole card, so that engines share one: 0.4 and 0.4', () => {
    expect(allowed(80, 70, 0.4, 8)).toBeCloseTo(24 * GB, 0)
    expect(allowed(80, 38, 0.4, 8)).toBeCloseTo(24 * GB, 0) // the other has taken its own
  })
  it('never counts on what others hold, and leaves a reserve', () => {
    expect(allowed(80, 20, 0.9, 16)).toBeCloseTo(20 * GB - GPU_RESERVE, 0)
    expect(allowed(80, 63, 1, 16)).toBeCloseTo(63 * GB - GPU_RESERVE, 0)
  })
  it('allows next to nothing where the weights are more, which the cache then says', () => {
    expect(allowed(80, 60, 0.1, 16)).toBeLessThanOrEqual(1)
    expect(allowed(80, 0.1, 0.9, 16)).toBeLessThanOrEqual(1)
    expect(shareOfFree(card(80, 0), 0.9, 16 * GB)).toBeGreaterThan(0)
  })
})

it('weights that do not fit are an error that names the card and what to change', () => {
  expect(fitting(16 * GB, card(80, 70))).toBe(16 * GB)
  expect(() => fitting(16 * GB, card(8, 7.5))).toThrow(
    expect.objectContaining({
      code: 'OUT_OF_MEMORY',
      message:
        'the weights take 16.0 GB of GPU memory; cuda:0 (a card) has 7.5 of 8.0 GB free. ' +
        'Use a smaller model, a 16-bit dtype, another GPU (--device cuda:1), or end what else runs on this one.',
    }),
  )
})
