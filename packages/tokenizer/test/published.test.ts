import { readFileSync } from 'node:fs'
import { Tokenizer as RustTokenizer } from 'tokenizers'
import { describe, expect, it } from 'vitest'
import { Tokenizer } from '../src/tokenizer.ts'
import { publishedFolder } from './families.ts'
import { Random } from './random.ts'

/** Source code and prose of this package: what prompts look like. */
const PROSE = ['../src/tokenizer.ts', '../src/regex.ts', 'fixtures/chat/rendered.json']
  .map((name) => readFileSync(new URL(name, import.meta.url), 'utf8'))
  .join('\n')

describe.each(['llama3_1', 'qwen3', 'gemma3'])('the vocabulary of %s', (name) => {
  const tokenizer = Tokenizer.fromFolder(publishedFolder(name))

  it('gives the ids and texts that the Rust library gives', { timeout: 60_000 }, async () => {
    const rust = RustTokenizer.fromString(readFileSync(`${publishedFolder(name)}/tokenizer.json`, 'utf8'))
    const random = new Random(name.length)
    const added = tokenizer.addedTokens.map((token) => token.content)
    const texts = Array.from({ length: 120 }, () =>
      Array.from({ length: random.below(8) }, () => {
        const start = random.below(PROSE.length)
        return random.chance(40) ? PROSE.slice(start, start + random.below(40)) : random.chance(20) ? random.pick(added) : random.text(12)
      }).join(''),
    )
    for (const text of [PROSE, ...texts]) {
      const ids = (await rust.encode(text)).getIds()
      expect(tokenizer.encode(text), JSON.stringify(text.slice(0, 300))).toEqual(ids)
      const any = random.chance(50) ? ids : Array.from({ length: 20 }, () => random.below(tokenizer.vocabSize))
      expect(tokenizer.decode(any, { skipSpecialTokens: false })).toBe(await rust.decode(any, false))
    }
  })

  it('has special tokens, and token texts whose bytes are the text', () => {
    expect(tokenizer.specialToken('eos_token')).toBeDefined()
    const ids = tokenizer.encode('The café 🎉 costs 3 €.\n', { addSpecialTokens: false })
    const bytes = ids.flatMap((id) => [...tokenizer.tokenText(id).bytes])
    expect(Buffer.from(bytes).toString('utf8')).toBe('The café 🎉 costs 3 €.\n')
  })

  // Quadratic time would take minutes for each of these; a million units take about half a second.
  const units = name === 'llama3_1' ? 1e6 : 2e5
  it.each([
    ['one letter', 'a'.repeat(units)],
    ['spaces', ' '.repeat(units)],
    ['line ends', '\n'.repeat(units)],
    ['two letters', 'ab'.repeat(units / 2)],
    ['emoji', '🎉'.repeat(units / 4)],
    ['signs', '!'.repeat(units)],
    ['digits', '7'.repeat(units)],
  ])('encodes very much of %s in linear time', (_, text) => {
    const started = performance.now()
    const ids = tokenizer.encode(text, { addSpecialTokens: false })
    expect(performance.now() - started).toBeLessThan(15_000)
    expect(tokenizer.decode(ids)).toBe(text)
  })

  it('lets others run while it encodes', async () => {
    const text = `${PROSE.repeat(3)}${'a'.repeat(100_000)}`
    let turns = 0
    let done = false
    const count = (): void => {
      turns++
      if (!done) setImmediate(count)
    }
    setImmediate(count)
    const ids = await tokenizer.encodeAsync(text)
    done = true
    expect(turns).toBeGreaterThan(5)
    expect(ids).toEqual(tokenizer.encode(text))
    const controller = new AbortController()
    const aborted = tokenizer.encodeAsync(text.repeat(4), { signal: controller.signal })
    setTimeout(() => controller.abort(new Error('gone')), 5)
    await expect(aborted).rejects.toThrow('gone')
  })

  it('stops early when a text is too long', () => {
    const tooMany = expect.objectContaining({ code: 'TOO_MANY_TOKENS' })
    const started = performance.now()
    expect(() => tokenizer.encode('word '.repeat(4e6), { maxTokens: 1000 })).toThrow(tooMany)
    expect(() => tokenizer.encode('a'.repeat(2e6), { maxTokens: 1000 })).toThrow(tooMany)
    expect(performance.now() - started).toBeLessThan(5000)
    const { length } = tokenizer.encode('just so many')
    expect(tokenizer.encode('just so many', { maxTokens: length })).toHaveLength(length)
    expect(() => tokenizer.encode('just so many', { maxTokens: length - 1 })).toThrow(tooMany)
  })
})
