import { describe, expect, it } from 'vitest'
import { Tokenizer } from '../src/tokenizer.ts'
import { expectedOf, FAMILIES, familyFolder } from './families.ts'

it('has seven families', () => expect(FAMILIES.length).toBe(7))

describe.each(FAMILIES)('%s', (family) => {
  const tokenizer = Tokenizer.fromFolder(familyFolder(family))
  const expected = expectedOf(family)

  it('has the 90 texts', () => expect(expected.length).toBe(90))

  it.each(expected)('%# $text', ({ text, ids, ids_plain, decoded, decoded_all }) => {
    expect(tokenizer.encode(text)).toEqual(ids)
    expect(tokenizer.encode(text, { addSpecialTokens: false })).toEqual(ids_plain)
    expect(tokenizer.decode(ids)).toBe(decoded)
    expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe(decoded_all)
  })

  it('gives the same ids with pauses', async () => {
    const text = expected.map((entry) => entry.text).join(' ')
    expect(await tokenizer.encodeAsync(text)).toEqual(tokenizer.encode(text))
  })

  it('knows every token by id and text', () => {
    for (let id = 0; id < tokenizer.vocabSize; id++) expect(tokenizer.tokenToId(tokenizer.idToToken(id)!)).toBe(id)
    expect(tokenizer.idToToken(tokenizer.vocabSize)).toBeUndefined()
  })
})
