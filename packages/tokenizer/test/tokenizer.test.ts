import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { compileRegex } from '../src/regex.ts'
import { Tokenizer } from '../src/tokenizer.ts'
import { familyFolder, tokenizerJson } from './families.ts'

const failing = (code: string, message: RegExp) => expect.objectContaining({ code, message: expect.stringMatching(message) as string })
const bad = (message: RegExp) => failing('BAD_TOKENIZER', message)
const folderWith = (files: Record<string, string>): string => {
  const folder = mkdtempSync(join(tmpdir(), 'tokenizer-'))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
  return folder
}

describe('a folder', () => {
  it('without tokenizer.json says what is missing and what to do', () => {
    expect(() => Tokenizer.fromFolder(folderWith({}))).toThrow(failing('NO_TOKENIZER', /has no tokenizer\.json\. Add the file/))
    expect(() => Tokenizer.fromFolder(folderWith({ 'tokenizer.model': '' }))).toThrow(
      failing('NO_TOKENIZER', /It has tokenizer\.model, an older form: convert/),
    )
    expect(() => Tokenizer.fromFolder('/nowhere/at/all')).toThrow(failing('NO_TOKENIZER', /is not a folder that can be read/))
  })

  it('with a file that is cut off names it', () => {
    expect(() => Tokenizer.fromFolder(folderWith({ 'tokenizer.json': '{"model": {' }))).toThrow(
      bad(/tokenizer\.json is not JSON.*fetch it again/),
    )
    const files = { 'tokenizer.json': JSON.stringify(tokenizerJson('gpt2-style')), 'tokenizer_config.json': '{' }
    expect(() => Tokenizer.fromFolder(folderWith(files))).toThrow(bad(/tokenizer_config\.json is not JSON/))
  })

  it('names its special tokens in tokenizer_config.json, or special_tokens_map.json', () => {
    const json = JSON.stringify(tokenizerJson('gpt2-style'))
    const config = JSON.stringify({ bos_token: '<|bos|>', eos_token: { content: '<|eos|>' }, pad_token: null, model_max_length: 1e30 })
    const tokenizer = Tokenizer.fromFolder(folderWith({ 'tokenizer.json': json, 'tokenizer_config.json': config }))
    expect(tokenizer.specialToken('bos_token')).toEqual({ token: '<|bos|>', id: 0 })
    expect(tokenizer.specialToken('eos_token')).toEqual({ token: '<|eos|>', id: 1 })
    expect(tokenizer.specialToken('pad_token')).toBeUndefined()
    expect(tokenizer.config.modelMaxLength).toBeUndefined()
    expect([...tokenizer.specialTokenIds].sort()).toEqual([0, 1, 2, 3])
    const older = Tokenizer.fromFolder(folderWith({ 'tokenizer.json': json, 'special_tokens_map.json': '{"eos_token": "<|eos|>"}' }))
    expect(older.specialToken('eos_token')?.id).toBe(1)
  })
})

describe('a tokenizer.json', () => {
  const base = tokenizerJson('gpt2-style')
  const make = (changes: object) => () => Tokenizer.fromJSON({ ...base, ...changes })

  it.each([
    [null, /tokenizer\.json must be an object, not null/],
    [[], /must be an object, not a list/],
    [{}, /has no "model"/],
    [{ model: 3 }, /tokenizer\.json\.model must be an object, not 3/],
    ['{"mod', /is not JSON/],
  ])('%j is none', (json, message) => expect(() => Tokenizer.fromJSON(json)).toThrow(bad(message)))

  it('that names an unknown component says where, and what is near', () => {
    expect(make({ pre_tokenizer: { type: 'ByteLevels' } })).toThrow(
      bad(/pre_tokenizer\.type is "ByteLevels"; known are .*Did you mean "ByteLevel"/),
    )
    expect(make({ normalizer: { type: 'Sequence', normalizers: [{ type: 'NFX' }] } })).toThrow(
      bad(/normalizer\.normalizers\[0\]\.type is "NFX"/),
    )
    expect(make({ decoder: { type: 'constructor' } })).toThrow(bad(/decoder\.type is "constructor"/))
    expect(make({ model: { type: 'Markov' } })).toThrow(bad(/model\.type is "Markov"/))
    expect(make({ post_processor: {} })).toThrow(bad(/post_processor\.type must be a string, not missing/))
  })

  it('with broken contents says where', () => {
    const model = (changes: object) => make({ model: { ...base.model, ...changes } })
    expect(model({ vocab: { a: -1 } })).toThrow(bad(/vocab gives "a" the id -1/))
    expect(model({ vocab: { a: 1e9 } })).toThrow(bad(/vocab gives "a" the id 1000000000/))
    expect(model({ vocab: undefined })).toThrow(bad(/model\.vocab must be an object, not missing/))
    expect(model({ merges: ['a'] })).toThrow(bad(/merges\[0\] is "a", not two tokens/))
    expect(model({ merges: [['a', 'zzz']] })).toThrow(bad(/merges\[0\] needs the token "zzz"/))
    expect(model({ unk_token: 'nothing' })).toThrow(bad(/unk_token is "nothing", which is not in the vocabulary/))
    expect(make({ added_tokens: [{ id: 0 }] })).toThrow(bad(/added_tokens\[0\]\.content must be a string/))
    const split = (pattern: object, behavior = 'Isolated') => make({ pre_tokenizer: { type: 'Split', pattern, behavior, invert: false } })
    expect(split({ Regex: '(' })).toThrow(bad(/pre_tokenizer\.pattern: the regular expression "\(" has an unclosed \(/))
    expect(split({ Regex: '\\p{Klingon}' })).toThrow(bad(/unknown property \\p\{Klingon\}/))
    expect(split({ String: 'a' }, 'Isolate')).toThrow(bad(/behavior is "Isolate"; known are .*Did you mean "Isolated"/))
    expect(make({ normalizer: { type: 'Precompiled', precompiled_charsmap: 'AAAA' } })).toThrow(bad(/too short to be a character map/))
  })

  it('is not changed by a prototype', () => {
    const tokenizer = Tokenizer.fromJSON(
      JSON.parse('{"model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "__proto__": 1, "toString": 2}}}'),
    )
    expect(['__proto__', 'toString', 'valueOf'].map((word) => tokenizer.encode(word)[0])).toEqual([1, 2, 0])
  })

  it('of an older make has no model type, and merges as text', () => {
    const { type: _, ...model } = base.model
    const merges = (model['merges'] as [string, string][]).map((pair) => pair.join(' '))
    const text = ' Hello  world'
    expect(Tokenizer.fromJSON({ ...base, model: { ...model, merges } }).encode(text)).toEqual(Tokenizer.fromJSON(base).encode(text))
  })
})

describe('ids', () => {
  const tokenizer = Tokenizer.fromFolder(familyFolder('llama2-style'))

  it('that are none are refused', () => {
    for (const id of [-1, 1.5, Number.NaN, tokenizer.vocabSize, 1e9])
      expect(() => tokenizer.decode([5, id])).toThrow(failing('TOKEN_ID', new RegExp(`^${id} is no token id of this tokenizer`)))
    expect(() => tokenizer.tokenText(-1)).toThrow(failing('TOKEN_ID', /-1 is no token id/))
    expect(tokenizer.tokenText(tokenizer.vocabSize + 5)).toEqual({ token: '', bytes: [] })
  })

  it('have their own text and bytes in every family', () => {
    const text = (family: string, token: string) => {
      const tokenizer = Tokenizer.fromFolder(familyFolder(family))
      return tokenizer.tokenText(tokenizer.tokenToId(token)!)
    }
    expect(text('llama2-style', '<0x0A>')).toEqual({ token: '\n', bytes: [10] })
    expect(text('llama2-style', '<0xE4>')).toEqual({ token: '\ufffd', bytes: [0xe4] })
    expect(text('llama2-style', '▁')).toEqual({ token: ' ', bytes: [32] })
    expect(text('llama2-style', '</s>')).toEqual({ token: '</s>', bytes: [...Buffer.from('</s>')] })
    expect(text('unigram', '▁')).toEqual({ token: ' ', bytes: [32] })
    expect(text('gpt2-style', 'Ġt')).toEqual({ token: ' t', bytes: [32, 116] })
    expect(text('gpt2-style', 'Ã')).toEqual({ token: '\ufffd', bytes: [0xc3] })
    expect(text('gpt2-style', '<|eos|>').token).toBe('<|eos|>')
    expect(text('wordpiece', '##s')).toEqual({ token: 's', bytes: [115] })
  })
})

describe('texts', () => {
  const tokenizer = Tokenizer.fromFolder(familyFolder('gpt2-style'))

  it('may have special tokens in them, or their letters', () => {
    expect(tokenizer.encode('a<|eos|>b', { addSpecialTokens: false })).toHaveLength(3)
    const plain = tokenizer.encode('a<|eos|>b', { addSpecialTokens: false, parseSpecialTokens: false })
    expect(plain).not.toContain(1)
    expect(tokenizer.decode(plain)).toBe('a<|eos|>b')
  })

  it('may have halves of characters, which become U+FFFD', () => {
    expect(tokenizer.encode('a\ud800b')).toEqual(tokenizer.encode('a\ufffdb'))
  })

  it('that no token is for are an error where there is no unknown token', () => {
    const json = tokenizerJson('unigram')
    const without = Tokenizer.fromJSON({ ...json, added_tokens: [], model: { ...json.model, unk_id: null } })
    expect(() => without.encode('\u{1F389}')).toThrow(failing('BAD_TEXT', /"🎉" is not in the vocabulary.*no unk_id/))
  })
})

describe('a character map of SentencePiece', () => {
  /** A double-array trie by hand: `A` to `b`, `é` (C3 A9) to `e`, `ﬁ` (EF AC 81) to `fi`. */
  it('replaces what it knows', () => {
    const keys: [number[], number][] = [
      [[0x41], 0],
      [[0xc3, 0xa9], 2],
      [[0xef, 0xac, 0x81], 4],
    ]
    const replacements = Buffer.from('b\0e\0fi\0')
    const units = doubleArray(keys)
    const data = Buffer.alloc(4 + units.length * 4)
    data.writeUInt32LE(units.length * 4, 0)
    for (const [i, unit] of units.entries()) data.writeUInt32LE(unit, 4 + 4 * i)
    const precompiled_charsmap = Buffer.concat([data, replacements]).toString('base64')
    const tokenizer = Tokenizer.fromJSON({
      normalizer: { type: 'Precompiled', precompiled_charsmap },
      model: { type: 'WordLevel', unk_token: '?', vocab: { '?': 0, 'bx e fi\u{1F389}': 1 } },
    })
    expect(tokenizer.encode('Ax é ﬁ\u{1F389}')).toEqual([1])
  })
})

/** Places each node's children by trial: unit = offset << 10 | has a leaf << 8 | label, as in Darts-clone. */
function doubleArray(keys: readonly (readonly [readonly number[], number])[]): Uint32Array {
  const units = new Uint32Array(4096)
  const used = new Set([0])
  const place = (at: number, suffixes: readonly (readonly [readonly number[], number])[]): void => {
    const labels = [...new Set(suffixes.map(([bytes]) => bytes[0] ?? 0))]
    let base = 1
    while (labels.some((label) => used.has(at ^ base ^ label))) base++
    units[at] = units[at]! | (base << 10) | (labels.includes(0) ? 1 << 8 : 0)
    for (const label of labels) used.add(at ^ base ^ label)
    for (const label of labels) {
      const child = at ^ base ^ label
      const rest = suffixes.filter(([bytes]) => (bytes[0] ?? 0) === label)
      if (label === 0) units[child] = (rest[0]![1] | 0x80000000) >>> 0
      else {
        units[child] = label
        place(
          child,
          rest.map(([bytes, value]) => [bytes.slice(1), value] as const),
        )
      }
    }
  }
  place(0, keys)
  return units
}

describe('a regular expression', () => {
  it('that JavaScript cannot do is refused by name', () => {
    for (const [source, problem] of [
      ['\\G', /uses \\G/],
      ['\\X', /uses \\X/],
      ['(?~x)', /uses \(\?~x\)/],
      ['a)', /unmatched \)/],
      ['[a', /ends too early/],
      ['[[:no:]]', /unknown class/],
      ['\\x{110000}', /beyond U\+10FFFF/],
    ] as const)
      expect(() => compileRegex(source, 'here'), source).toThrow(bad(problem))
  })
})
