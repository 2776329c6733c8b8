import { describe, expect, it } from 'vitest'
import { StopChecker } from '../src/stop-strings.ts'
import { Random } from './random.ts'

/** By definition: character by character, the first place where a stop string ends; the longest one there. */
function reference(text: string, stops: readonly string[]): { shown: string; stop: string | null } {
  for (let end = 1; end <= text.length; end++) {
    const found = stops.filter((stop) => text.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length)[0]
    if (found !== undefined) return { shown: text.slice(0, end - found.length), stop: found }
  }
  return { shown: text, stop: null }
}

function run(parts: readonly string[], stops: readonly string[], includeStop = false) {
  const checker = new StopChecker(stops, { includeStop })
  let shown = ''
  for (const part of parts) {
    const { text, stop } = checker.push(part)
    shown += text
    if (stop !== null) return { shown, stop, checker }
  }
  return { shown: shown + checker.flush(), stop: null, checker }
}

it('finds a stop string across parts and shows nothing of it', () => {
  const checker = new StopChecker(['\n\nUser:', '###'])
  expect(checker.push('Hi#')).toEqual({ text: 'Hi', stop: null })
  expect(checker.push('# there\n')).toEqual({ text: '## there', stop: null })
  expect(checker.push('\nUse')).toEqual({ text: '', stop: null })
  expect(checker.push('r: more')).toEqual({ text: '', stop: '\n\nUser:' })
  expect(checker.push('more')).toEqual({ text: '', stop: null })
  expect(checker.flush()).toBe('')
})

it('keeps the stop string when asked to, and drops what follows', () => {
  expect(run(['ab', 'cX', 'Yz'], ['XY'], true)).toMatchObject({ shown: 'abcXY', stop: 'XY' })
})

it('takes the one that is complete first, the longest of those', () => {
  expect(run(['abcd'], ['abcd', 'bc'])).toMatchObject({ shown: 'a', stop: 'bc' })
  expect(run(['xab'], ['b', 'ab'])).toMatchObject({ shown: 'x', stop: 'ab' })
  expect(run(['aab'], ['ab'])).toMatchObject({ shown: 'a', stop: 'ab' })
})

it('gives out what was held back when nothing follows', () => {
  expect(run(['one ##'], ['###'])).toMatchObject({ shown: 'one ##', stop: null })
})

it('lets text pass unchecked, such as before minTokens', () => {
  const checker = new StopChecker(['ab'])
  expect(checker.push('xa')).toEqual({ text: 'x', stop: null })
  expect(checker.pass('b ab')).toBe('ab ab')
  expect(checker.push('b')).toEqual({ text: 'b', stop: null })
  expect(checker.push('ab')).toEqual({ text: '', stop: 'ab' })
})

it('refuses an empty stop string', () => {
  expect(() => new StopChecker(['a', ''])).toThrow(expect.objectContaining({ code: 'BAD_STOP_STRING' }))
})

describe('however the text is cut', () => {
  it('does what the definition says', () => {
    const random = new Random(1)
    for (let round = 0; round < 5000; round++) {
      const letters = ['a', 'b', random.pick(['c', '🎉'])]
      const word = (longest: number) => Array.from({ length: 1 + random.below(longest) }, () => random.pick(letters)).join('')
      const stops = Array.from({ length: 1 + random.below(5) }, () => word(5))
      const text = word(20)
      const parts: string[] = []
      for (let at = 0; at < text.length; ) {
        const end = at + 1 + random.below(4)
        parts.push(text.slice(at, end))
        at = end
      }
      const expected = reference(text, stops)
      expect(run(parts, stops), JSON.stringify({ parts, stops })).toMatchObject(expected)
      if (expected.stop !== null) expect(run(parts, stops, true).shown).toBe(expected.shown + expected.stop)
    }
  })

  it('never shows a character that later turns out to belong to a stop string', () => {
    const checker = new StopChecker(['aaab', 'aab'])
    let shown = ''
    for (const char of 'aaaaaab') shown += checker.push(char).text
    expect(shown).toBe('aaa')
  })

  it('reads a megabyte with a thousand stop strings in linear time', () => {
    const stops = Array.from({ length: 1000 }, (_, i) => `${'a'.repeat(i % 97)}b${i}`)
    const checker = new StopChecker(stops)
    const started = performance.now()
    for (let i = 0; i < 1000; i++) checker.push('a'.repeat(1000))
    expect(performance.now() - started).toBeLessThan(3000)
  })
})
