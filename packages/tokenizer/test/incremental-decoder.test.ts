import { Tokenizer as RustTokenizer } from 'tokenizers'
import { describe, expect, it } from 'vitest'
import { toByteAlphabet } from '../src/byte-alphabet.ts'
import { cleanUp } from '../src/clean-up.ts'
import type { DecodeOptions } from '../src/incremental-decoder.ts'
import { Tokenizer } from '../src/tokenizer.ts'
import { expectedOf, FAMILIES, familyFolder, tokenizerJson } from './families.ts'
import { Random } from './random.ts'

function streamed(tokenizer: Tokenizer, ids: readonly number[], options: DecodeOptions): string {
  const decoder = tokenizer.incrementalDecoder(options)
  const parts = ids.map((id) => decoder.push(id))
  parts.push(decoder.flush())
  for (const part of parts) expect(part.isWellFormed(), `half a character in ${JSON.stringify(part)}`).toBe(true)
  return parts.join('')
}

describe.each(FAMILIES)('%s', (family) => {
  const tokenizer = Tokenizer.fromFolder(familyFolder(family))
  const rust = RustTokenizer.fromString(JSON.stringify(tokenizerJson(family)))

  it('streams what Hugging Face decodes at once, of the texts', () => {
    for (const { ids, decoded, decoded_all } of expectedOf(family)) {
      expect(streamed(tokenizer, ids, {})).toBe(decoded)
      expect(streamed(tokenizer, ids, { skipSpecialTokens: false })).toBe(decoded_all)
    }
  })

  it('streams what Hugging Face decodes at once, of any ids', async () => {
    const random = new Random(FAMILIES.indexOf(family))
    for (let round = 0; round < 300; round++) {
      const ids = Array.from({ length: random.below(30) }, () => random.below(tokenizer.vocabSize))
      const skipSpecialTokens = random.chance(50)
      const whole = await rust.decode(ids, skipSpecialTokens)
      expect(streamed(tokenizer, ids, { skipSpecialTokens }), `ids ${ids}`).toBe(whole)
      expect(streamed(tokenizer, ids, { skipSpecialTokens, cleanUpTokenizationSpaces: true }), `ids ${ids}`).toBe(cleanUp(whole))
    }
  })
})

/** A model of a few tokens: `tokens[i]` has the id i. */
function small(tokens: readonly string[], decoder: object | null): Tokenizer {
  return Tokenizer.fromJSON({
    model: { type: 'WordLevel', unk_token: tokens[0], vocab: Object.fromEntries(tokens.map((token, id) => [token, id])) },
    decoder,
  })
}

it('gives a character out with its last byte, and nothing that a later byte changes', () => {
  const tokenizer = small(['h', ...toByteAlphabet('😉')], { type: 'ByteLevel' })
  const decoder = tokenizer.incrementalDecoder()
  expect([0, 1, 2, 3, 4, 0, 1, 0].map((id) => decoder.push(id))).toEqual(['h', '', '', '', '😉', 'h', '', '\ufffdh'])
})

it('holds a run of byte tokens, which one bad byte spoils as a whole', () => {
  const tokenizer = small(['a', '<0xC3>', '<0xA9>', '<0xFF>'], { type: 'ByteFallback' })
  const feed = (ids: number[]) => {
    const decoder = tokenizer.incrementalDecoder()
    return [...ids.map((id) => decoder.push(id)), decoder.flush()]
  }
  expect(feed([0, 1, 2, 0])).toEqual(['a', '', '', 'éa', ''])
  expect(feed([1, 2, 3, 0])).toEqual(['', '', '', '\ufffd\ufffd\ufffda', ''])
  expect(feed([1, 2])).toEqual(['', '', 'é'])
})

it('takes characters off both ends of a token', () => {
  const tokenizer = small(['  x  ', ' ', 'y'], {
    type: 'Sequence',
    decoders: [{ type: 'Fuse' }, { type: 'Strip', content: ' ', start: 1, stop: 2 }],
  })
  expect(tokenizer.decode([0, 1, 2, 1, 1, 1])).toBe(' x   y ')
  const decoder = tokenizer.incrementalDecoder()
  expect([0, 1, 2, 1, 1, 1].map((id) => decoder.push(id))).toEqual([' x', ' ', '  y', '', '', ' '])
  expect(decoder.flush()).toBe('')
})

it('cleans up across tokens like all at once', () => {
  const random = new Random(5)
  const tokens = [' ', '.', ' .', "'", " '", 'n', "n't", 's', "'s", ' a', 'b', "'ve", 're', ',', ' ?', 'm']
  const tokenizer = small(tokens, { type: 'Fuse' })
  for (let round = 0; round < 2000; round++) {
    const ids = Array.from({ length: random.below(12) }, () => random.below(tokens.length))
    const whole = ids.map((id) => tokens[id]).join('')
    expect(streamed(tokenizer, ids, { cleanUpTokenizationSpaces: true }), JSON.stringify(whole)).toBe(cleanUp(whole))
  }
})

it('passes over ids without a token', () => {
  const tokenizer = small(['a', 'b'], { type: 'Fuse' })
  expect(streamed(tokenizer, [0, 7, 1, 151_999], {})).toBe('ab')
})

it('takes the same time for each token, however many came before', () => {
  const tokenizer = Tokenizer.fromFolder(familyFolder('llama2-style'))
  const random = new Random(9)
  const ids = Array.from({ length: 200_000 }, () => random.below(tokenizer.vocabSize))
  const started = performance.now()
  const decoder = tokenizer.incrementalDecoder({ skipSpecialTokens: false })
  for (const id of ids) decoder.push(id)
  // Decoding all again for each token would take hours; this takes about 0.2 s.
  expect(performance.now() - started).toBeLessThan(10_000)
})
