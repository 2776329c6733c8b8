import { describe, expect, test } from 'vitest'
import { BlockNames, PrefixTable } from '../src/prefix-cache.ts'

const tokens = Int32Array.from({ length: 48 }, (_, i) => i * 3)

describe('BlockNames', () => {
  test('stand for everything before them', () => {
    const names = new BlockNames()
    const root = names.root('', 0)
    const first = names.next(root, tokens, 0)
    expect(names.next(root, tokens.slice(), 0)).toBe(first)
    expect(names.next(first, tokens, 16)).not.toBe(names.next(root, tokens, 16))
    for (let i = 0; i < 16; i++) {
      const other = tokens.slice()
      other[i]! += 1 << 16
      expect(names.next(root, other, 0)).not.toBe(first)
    }
  })

  test('differ with the salt, the class of the sequence and the engine', () => {
    const names = new BlockNames()
    const roots = [names.root('', 0), names.root('', 1), names.root('a', 0), names.root('1:', 0), new BlockNames().root('', 0)]
    expect(new Set(roots).size).toBe(roots.length)
    expect(names.root('a', 0)).toBe(roots[2])
  })
})

describe('PrefixTable', () => {
  test('finds a block by its name and its ids, never by the name alone', () => {
    const table = new PrefixTable(8)
    table.insert('name', 3, tokens, 16)
    expect(table.find('name', tokens, 16)).toBe(3)
    expect(table.find('other', tokens, 16)).toBe(0)
    // As if two contents had one SHA-256.
    expect(table.find('name', tokens, 0)).toBe(0)
  })

  test('the first block of a name keeps it, and a block has one name', () => {
    const table = new PrefixTable(8)
    table.insert('a', 3, tokens, 0)
    table.insert('a', 4, tokens, 0)
    table.insert('b', 3, tokens, 16)
    expect(table.find('a', tokens, 0)).toBe(3)
    expect(table.has(4)).toBe(false)
    expect(table.find('b', tokens, 16)).toBe(0)
    table.forget(4)
    table.forget(3)
    expect([table.size, table.has(3), table.find('a', tokens, 0)]).toEqual([0, false, 0])
  })
})
