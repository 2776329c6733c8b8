import { describe, expect, test } from 'vitest'
import { ByteSet, overlaps, type Region } from '../src/regions.ts'

const bytesOf = ({ start, rowBytes, rows, stride }: Region): Set<number> => {
  const bytes = new Set<number>()
  for (let i = 0; i < rows; i++) for (let b = 0; b < rowBytes; b++) bytes.add(start + i * stride + b)
  return bytes
}

/** Regions of a small memory, many of them with one stride, as the views of one buffer have. */
function regions(seed: number): () => Region {
  let state = seed
  const draw = (n: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return (state >>> 10) % n
  }
  return () => {
    const rows = [0, 1, 1, 2, 3, 5][draw(6)]!
    const stride = [8, 8, 8, 6, 16][draw(5)]!
    const rowBytes = rows > 1 ? 1 + draw(stride) : 1 + draw(30)
    return { start: draw(60), rowBytes, rows, stride, block: undefined }
  }
}

describe('bytes', () => {
  test('overlap where they have one in common', () => {
    const next = regions(1)
    let hits = 0
    for (let i = 0; i < 5000; i++) {
      const [a, b] = [next(), next()]
      const [inA, inB] = [bytesOf(a), bytesOf(b)]
      const common = [...inA].some((x) => inB.has(x))
      expect(overlaps(a, b), JSON.stringify([a, b])).toBe(common)
      if (common) hits++
    }
    expect(hits).toBeGreaterThan(1000)
    expect(hits).toBeLessThan(4000)
  })

  test('are added and taken away one by one', () => {
    for (let seed = 1; seed <= 300; seed++) {
      const next = regions(seed)
      const set = new ByteSet()
      const expected = new Set<number>()
      const story: unknown[] = []
      for (let i = 0; i < 20; i++) {
        const region = next()
        const add = (seed + i) % 3 === 0
        story.push([add, region])
        if (add) set.add(region)
        else set.subtract(region)
        for (const b of bytesOf(region)) {
          if (add) expected.add(b)
          else expected.delete(b)
        }
        expect(set.isEmpty, JSON.stringify(story)).toBe(expected.size === 0)
        for (let b = 0; b < 160; b++) {
          const has = set.overlaps({ start: b, rowBytes: 1, rows: 1, stride: 1, block: undefined })
          if (has !== expected.has(b)) expect.fail(`byte ${b} after ${JSON.stringify(story)}`)
        }
      }
    }
  })
})
