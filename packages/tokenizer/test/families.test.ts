import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { Tokenizer } from '../src/tokenizer.ts'

/** What Hugging Face gives for a text; `decoded` leaves special tokens out. */
interface Expected {
  text: string
  ids: number[]
  ids_plain: number[]
  decoded: string
  decoded_all: string
}

const folder = (name: string) => fileURLToPath(new URL(`fixtures/tokenizers/${name}`, import.meta.url))

describe.each(readdirSync(folder('')))('%s', (family) => {
  const tokenizer = Tokenizer.fromFolder(folder(family))
  const expected = JSON.parse(readFileSync(`${folder(family)}/expected.json`, 'utf8')) as Expected[]

  it('has the 90 texts', () => expect(expected.length).toBe(90))

  it.each(expected)('%# $text', ({ text, ids, ids_plain, decoded, decoded_all }) => {
    expect(tokenizer.encode(text)).toEqual(ids)
    expect(tokenizer.encode(text, { addSpecialTokens: false })).toEqual(ids_plain)
    expect(tokenizer.decode(ids)).toBe(decoded)
    expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe(decoded_all)
  })
})
