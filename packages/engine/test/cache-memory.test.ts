import type { CacheSpec } from '@aphrodite/layers'
import { describe, expect, test } from 'vitest'
import { planGroups, sizeGroups } from '../src/cache-memory.ts'
import { blocksPerSequence } from '../src/paged-group.ts'
import { FakeDevice } from './fake-device.ts'

const paged = (window: number): CacheSpec => ({ kind: 'paged', kvHeads: 1, keyDim: 1, valueDim: 1, window })
const state: CacheSpec = { kind: 'state', tensors: { conv: { shape: [4, 8], dtype: 'bf16' }, ssm: { shape: [16], dtype: 'f32' } } }
const limits = { maxModelLen: 1024, modelLen: 4096, maxNumSeqs: 8, maxNumBatchedTokens: 64 }

describe('planGroups', () => {
  test('one group for each distinct kind and window, full attention first', () => {
    const plans = planGroups([paged(128), paged(0), state, paged(128), paged(64), paged(0)], new FakeDevice(), 'f32')
    expect(plans).toEqual([
      { kind: 'paged', window: 0, layers: [1, 5], blockBytes: 128 },
      { kind: 'paged', window: 64, layers: [4], blockBytes: 64 },
      { kind: 'paged', window: 128, layers: [0, 3], blockBytes: 128 },
      { kind: 'state', window: 0, layers: [2], blockBytes: 128 },
    ])
  })
})

describe('sizeGroups', () => {
  const plan = (window: number, blockBytes = 100) => ({ kind: 'paged' as const, window, layers: [0], blockBytes })

  test('full attention gets what fits, and no more than all sequences could use', () => {
    expect(sizeGroups([plan(0)], 100 * 101, limits).blocks).toEqual([101])
    expect(sizeGroups([plan(0)], 1e9, limits).blocks).toEqual([8 * 64 + 1])
  })

  test('a window gets what all sequences can look at, full attention the rest', () => {
    const window = 8 * blocksPerSequence(48, 1024, 64) + 1
    expect(window).toBe(8 * 8 + 1)
    expect(sizeGroups([plan(0), plan(48)], 100 * (window + 301), limits).blocks).toEqual([301, window])
    // With little memory both have the same.
    expect(sizeGroups([plan(0, 100), plan(1000, 300)], 400 * 70, limits).blocks).toEqual([70, 70])
  })

  test('states take their slots first', () => {
    const states = { kind: 'state' as const, window: 0, layers: [1], blockBytes: 1000 }
    expect(sizeGroups([plan(0), states], 9000 + 100 * 70, limits).blocks).toEqual([70, 9])
    expect(() => sizeGroups([plan(0), states], 8000, limits)).toThrow(
      'the states of 8 sequences take 9,100 bytes, 8,000 are left. Lower --max-num-seqs or raise --memory-fraction.',
    )
  })

  test('says so when one sequence does not fit', () => {
    expect(() => sizeGroups([plan(0)], 100 * 381, { ...limits, maxModelLen: 6592, modelLen: 8192 })).toThrow(
      expect.objectContaining({
        code: 'CACHE_TOO_SMALL',
        message: 'one sequence of 6,592 tokens needs 412 blocks, 380 fit. Lower --max-model-len or raise --memory-fraction.',
      }),
    )
    expect(() => sizeGroups([plan(0)], -5, { ...limits, maxModelLen: null })).toThrow('needs 256 blocks, 0 fit')
    expect(() => sizeGroups([plan(0)], -5, { ...limits, maxModelLen: null, deviceKind: 'cuda' })).toThrow(
      '0 fit in GPU memory. Lower --max-model-len or raise --gpu-memory-utilization.',
    )
  })

  test('chooses the length itself when none was asked for', () => {
    expect(sizeGroups([plan(0)], 100 * 101, { ...limits, maxModelLen: null })).toEqual({ blocks: [101], maxModelLen: 1600 })
    expect(sizeGroups([plan(0)], 1e9, { ...limits, maxModelLen: null }).maxModelLen).toBe(4096)
    // A window is no bound to the length.
    expect(sizeGroups([plan(48)], 100 * 20, { ...limits, maxModelLen: null })).toEqual({ blocks: [20], maxModelLen: 4096 })
  })

  test('a window of any place in its blocks fits blocksPerSequence', () => {
    for (const window of [1, 2, 15, 16, 17, 40])
      for (const chunk of [1, 7, 16, 33]) {
        let most = 0
        for (let start = 0; start < 200; start++) {
          const first = Math.floor(Math.max(0, start - window + 1) / 16)
          most = Math.max(most, Math.ceil((start + chunk) / 16) - first)
        }
        expect(blocksPerSequence(window, 4096, chunk)).toBeGreaterThanOrEqual(most)
        expect(blocksPerSequence(window, 4096, chunk)).toBeLessThanOrEqual(most + 1)
      }
  })
})
