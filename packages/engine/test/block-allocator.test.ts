import { describe, expect, test } from 'vitest'
import { BlockAllocator } from '../src/block-allocator.ts'
import { Random } from './random.ts'

describe('BlockAllocator', () => {
  test('a random walk of 100,000 steps agrees with a model of lists and maps', () => {
    const random = new Random(1)
    const blocks = 50
    const allocator = new BlockAllocator(blocks)
    const reused: number[] = []
    allocator.onReuse = (block) => reused.push(block)
    // The model: the free list as a plain array, users in a map.
    const free = Array.from({ length: blocks - 1 }, (_, i) => i + 1)
    const users = new Map<number, number>()
    for (let step = 0; step < 100_000; step++) {
      // It fills up and drains in turns, so that both ends are reached.
      const filling = Math.floor(step / 500) % 2 === 0
      const action = random.next()
      if (action < (filling ? 0.5 : 0.2)) {
        if (free.length === 0) {
          expect(() => allocator.allocate()).toThrow(/all 49 blocks are in use/)
        } else {
          const expected = free.shift()!
          users.set(expected, 1)
          expect(allocator.allocate()).toBe(expected)
          expect(reused.pop()).toBe(expected)
        }
      } else if (action < 0.6) {
        const block = 1 + random.below(blocks - 1)
        const i = free.indexOf(block)
        if (i >= 0) free.splice(i, 1)
        users.set(block, (users.get(block) ?? 0) + 1)
        allocator.retain(block)
      } else if (action < 0.65) {
        const block = 1 + random.below(blocks - 1)
        const i = free.indexOf(block)
        if (i >= 0) free.unshift(...free.splice(i, 1))
        allocator.discard(block)
      } else {
        const held = [...users.keys()]
        if (held.length === 0) continue
        const block = random.pick(held)
        const keep = random.chance(0.5)
        const left = users.get(block)! - 1
        if (left > 0) users.set(block, left)
        else {
          users.delete(block)
          if (keep) free.push(block)
          else free.unshift(block)
        }
        allocator.release(block, keep)
      }
      if (allocator.free !== free.length || allocator.used !== users.size) throw new Error(`counts differ at step ${step}`)
      if (step % 97 === 0) {
        allocator.assertBalanced(users.size)
        for (let block = 1; block < blocks; block++) expect(allocator.references(block)).toBe(users.get(block) ?? 0)
      }
    }
    expect(reused).toEqual([])
  })

  test('says which block is released too often, and which does not exist', () => {
    const allocator = new BlockAllocator(4)
    const block = allocator.allocate()
    allocator.release(block, true)
    expect(() => allocator.release(block, true)).toThrow(`block ${block} was released more often than it was taken`)
    for (const wrong of [0, -1, 4, Number.NaN]) expect(() => allocator.retain(wrong)).toThrow('there is no block')
  })

  test('assertBalanced finds a block that is still held', () => {
    const allocator = new BlockAllocator(4)
    allocator.assertBalanced()
    allocator.allocate()
    expect(() => allocator.assertBalanced()).toThrow('1 blocks are in use where 0 should be')
    allocator.assertBalanced(1)
  })
})
