import { expect, test } from 'vitest'
import { orderCores, partOfCores } from '../src/topology.ts'

/** Two threads a core: 0 and 4, 1 and 5, … */
const hyperthreaded = orderCores([0, 1, 2, 3, 4, 5, 6, 7], (core) => String(core % 4))

test('processes that share a machine have cores of their own, each with both halves', () => {
  expect(partOfCores(hyperthreaded, { index: 0, of: 2 })).toEqual({ cores: [0, 1, 4, 5], physical: 2 })
  expect(partOfCores(hyperthreaded, { index: 1, of: 2 })).toEqual({ cores: [2, 3, 6, 7], physical: 2 })
  expect(partOfCores(hyperthreaded, { index: 0, of: 1 })).toEqual(hyperthreaded)
})

test('parts that are not equal leave no core out, and none twice', () => {
  const parts = [0, 1, 2].map((index) => partOfCores(hyperthreaded, { index, of: 3 }))
  expect(parts.flatMap((p) => p.cores).toSorted()).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
  expect(parts.every((p) => p.physical >= 1)).toBe(true)
})

test('more processes than cores take turns', () => {
  const { cores } = partOfCores({ cores: [8, 9], physical: 2 }, { index: 4, of: 5 })
  expect(cores).toEqual([8])
})
