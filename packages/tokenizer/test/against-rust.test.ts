import { Tokenizer as RustTokenizer } from 'tokenizers'
import { describe, expect, it } from 'vitest'
import { Tokenizer } from '../src/tokenizer.ts'
import { FAMILIES, type TokenizerJson, tokenizerJson } from './families.ts'
import { Random } from './random.ts'

/** Every component in several settings, compared with Hugging Face's Rust library on random texts and ids. */
const split = (pattern: object, behavior = 'Isolated', invert = false) => ({ type: 'Split', pattern, behavior, invert })
const regex = (source: string, behavior = 'Isolated', invert = false) => split({ Regex: source }, behavior, invert)
const byteLevel = (add_prefix_space: boolean, use_regex: boolean) => ({
  type: 'ByteLevel',
  add_prefix_space,
  trim_offsets: true,
  use_regex,
})
const metaspace = (prepend_scheme: string, split: boolean) => ({ type: 'Metaspace', replacement: '▁', prepend_scheme, split })
const bert = (clean_text: boolean, handle_chinese_chars: boolean, strip_accents: boolean | null, lowercase: boolean) => ({
  type: 'BertNormalizer',
  clean_text,
  handle_chinese_chars,
  strip_accents,
  lowercase,
})
const normalizers = (...list: object[]) => ({ type: 'Sequence', normalizers: list })
const preTokenizers = (...list: object[]) => ({ type: 'Sequence', pretokenizers: list })
const decoders = (...list: object[]) => ({ type: 'Sequence', decoders: list })

const NORMALIZERS: (object | null)[] = [
  null,
  { type: 'NFC' },
  { type: 'NFD' },
  { type: 'NFKC' },
  { type: 'NFKD' },
  { type: 'Lowercase' },
  { type: 'StripAccents' },
  normalizers({ type: 'NFD' }, { type: 'StripAccents' }, { type: 'Lowercase' }),
  { type: 'Strip', strip_left: true, strip_right: true },
  { type: 'Strip', strip_left: false, strip_right: true },
  { type: 'Prepend', prepend: '▁' },
  normalizers({ type: 'Prepend', prepend: '▁' }, { type: 'Replace', pattern: { String: ' ' }, content: '▁' }),
  { type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' },
  { type: 'Replace', pattern: { Regex: '[a-c]{2,}|é' }, content: '$1x' },
  { type: 'Nmt' },
  bert(true, true, null, true),
  bert(false, true, true, false),
  bert(true, false, false, true),
]

const PRE_TOKENIZERS: (object | null)[] = [
  null,
  byteLevel(false, true),
  byteLevel(true, true),
  byteLevel(true, false),
  metaspace('always', true),
  metaspace('first', true),
  metaspace('never', true),
  metaspace('always', false),
  { type: 'Whitespace' },
  { type: 'WhitespaceSplit' },
  { type: 'BertPreTokenizer' },
  { type: 'Punctuation', behavior: 'Isolated' },
  { type: 'Punctuation', behavior: 'Contiguous' },
  { type: 'Digits', individual_digits: true },
  { type: 'Digits', individual_digits: false },
  { type: 'CharDelimiterSplit', delimiter: ' ' },
  { type: 'FixedLength', length: 3 },
  ...['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous'].flatMap((behavior) => [
    split({ String: ' ' }, behavior),
    regex('[ae]|\\d+', behavior),
    regex('\\w+', behavior, true),
  ]),
  preTokenizers({ type: 'WhitespaceSplit' }, metaspace('first', true)),
  preTokenizers({ type: 'Digits', individual_digits: true }, byteLevel(false, true)),
  preTokenizers(split({ String: ' ' }, 'MergedWithNext'), { type: 'Punctuation', behavior: 'MergedWithPrevious' }, byteLevel(true, false)),
]

const REGEXES = [
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  '\\s?[A-Za-zµÀ-ÖØ-öø-ƺ]+',
  '\\s?[!-/:-~！-／：-～‘-‟　-。]+',
  '[一-龥ࠀ-一가-퟿]+',
  '\\p{Han}+|\\p{Hiragana}|\\p{Katakana}',
  '\\d{1,3}(?=(?:\\d{3})*\\b)',
  '[[:punct:]]',
  '[[:alpha:]]+',
  '[^[:space:]]+',
  '(?<=a)b|b(?!c)',
  '\\h+',
  '[a-z&&[^aeiou]]+',
  '(?i)the|é|s',
  '(a|b)\\1',
  '(?>a+)b|x',
  '\\bthe\\b',
  '^a|b$',
  '\\A.|.\\z',
  '[\\-\\]a]+',
  '\\x{4E2D}|\\u6587|\\t',
  'a{,2}b',
  '(?m:a.b)',
  '(?x: a b # c\n | c )',
  '.+?b',
  '\\p{^L}+',
  '[^\\P{L}]+',
  '\\R',
]

const DECODERS: (object | null)[] = [
  null,
  byteLevel(true, true),
  metaspace('always', true),
  metaspace('never', true),
  { type: 'WordPiece', prefix: '##', cleanup: true },
  { type: 'WordPiece', prefix: '##', cleanup: false },
  { type: 'BPEDecoder', suffix: 'e' },
  { type: 'CTC', pad_token: 'a', word_delimiter_token: '|', cleanup: true },
  decoders({ type: 'Replace', pattern: { String: '▁' }, content: ' ' }, { type: 'ByteFallback' }, { type: 'Fuse' }),
  decoders(
    { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
    { type: 'ByteFallback' },
    { type: 'Fuse' },
    { type: 'Strip', content: ' ', start: 1, stop: 0 },
  ),
  decoders({ type: 'ByteFallback' }, metaspace('first', true)),
  decoders(byteLevel(true, true), { type: 'Replace', pattern: { Regex: '[ab]+' }, content: '-' }),
  decoders({ type: 'Strip', content: '▁', start: 2, stop: 0 }, { type: 'ByteFallback' }),
  decoders({ type: 'Fuse' }, { type: 'Strip', content: 'a', start: 1, stop: 0 }),
]

const token = (id: number, content: string, options: object = {}) => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: false,
  ...options,
})

function pair(json: TokenizerJson): { ours: Tokenizer; rust: RustTokenizer } {
  const text = JSON.stringify(json)
  return { ours: Tokenizer.fromJSON(text), rust: RustTokenizer.fromString(text) }
}

async function compare(json: TokenizerJson, random: Random, texts = 6): Promise<void> {
  const { ours, rust } = pair(json)
  const settings = JSON.stringify({ ...json, added_tokens: undefined, model: { ...json.model, vocab: 0, merges: 0 } })
  for (let i = 0; i < texts; i++) {
    const text = random.text(30)
    const addSpecialTokens = random.chance(50)
    const expected = (await rust.encode(text, null, { addSpecialTokens })).getIds()
    expect(ours.encode(text, { addSpecialTokens }), `${JSON.stringify(text)} ${settings}`).toEqual(expected)
    const ids = random.chance(50) ? expected : Array.from({ length: random.below(20) }, () => random.below(ours.vocabSize))
    const skipSpecialTokens = random.chance(50)
    const decoded = await rust.decode(ids, skipSpecialTokens)
    expect(ours.decode(ids, { skipSpecialTokens }), `ids ${ids}`).toBe(decoded)
  }
}

describe.each(FAMILIES)('%s like the Rust library', (family) => {
  const seed = FAMILIES.indexOf(family) + 1

  it('with every normalizer', async () => {
    const random = new Random(seed)
    for (const normalizer of NORMALIZERS) await compare({ ...tokenizerJson(family), normalizer }, random)
  })

  it('with every pre-tokenizer', async () => {
    const random = new Random(seed + 100)
    for (const pre_tokenizer of PRE_TOKENIZERS) await compare({ ...tokenizerJson(family), pre_tokenizer }, random)
  })

  it('with every decoder', async () => {
    const random = new Random(seed + 300)
    for (const decoder of DECODERS) await compare({ ...tokenizerJson(family), decoder }, random, 15)
  })

  it('with added tokens of all kinds', async () => {
    const random = new Random(seed + 400)
    for (let round = 0; round < 16; round++) {
      const json = tokenizerJson(family)
      const flags = () => ({ single_word: random.chance(50), lstrip: random.chance(50), rstrip: random.chance(50) })
      const size = pair(json).ours.vocabSize
      json.added_tokens.push(
        token(size, random.pick(['the', ' the', 'ab', 'HELLO']), { ...flags(), normalized: random.chance(50) }),
        token(size + 1, random.pick(['<x>', '<|tool|>', '▁▁', 'a\n\n']), { ...flags(), special: random.chance(50) }),
        token(size + 2, random.pick(['中', 'a b', 'the ', '  ']), flags()),
      )
      await compare(json, random, 16)
    }
  })

  it('with every post-processor', async () => {
    const random = new Random(seed + 500)
    const json = tokenizerJson(family)
    const around = { sep: ['x', 3], cls: ['y', 2] }
    for (const post_processor of [
      null,
      { type: 'BertProcessing', ...around },
      { type: 'RobertaProcessing', ...around, trim_offsets: true, add_prefix_space: false },
      {
        type: 'Sequence',
        processors: [byteLevel(true, true), ...(json.post_processor ? [json.post_processor] : []), { type: 'BertProcessing', ...around }],
      },
    ])
      await compare({ ...json, post_processor }, random)
  })
})

it.each(['llama3-style', 'unigram'])(
  '%s with the regular expressions of published models, and odd ones, like the Rust library',
  async (family) => {
    const random = new Random(200)
    for (const source of REGEXES)
      for (const behavior of ['Isolated', 'Removed', 'MergedWithNext'])
        await compare({ ...tokenizerJson(family), pre_tokenizer: regex(source, behavior, random.chance(20)) }, random, 4)
  },
)

describe('models like the Rust library', () => {
  const BPE = ['gpt2-style', 'llama2-style', 'metaspace-first', 'qwen2-style']

  it.each(BPE)('BPE of %s with unknown tokens, byte fallback, whole words, affixes', async (family) => {
    const random = new Random(BPE.indexOf(family) + 600)
    const known = Object.keys(tokenizerJson(family).model['vocab'] as object)
    for (let round = 0; round < 24; round++) {
      const json = tokenizerJson(family)
      const { model } = json
      model['ignore_merges'] = random.chance(40)
      model['fuse_unk'] = random.chance(50)
      model['byte_fallback'] = random.chance(50)
      model['unk_token'] = random.pick([null, '<unk>', known[7]!]) ?? null
      if (model['unk_token'] !== null && !known.includes(model['unk_token'] as string)) model['unk_token'] = known[5]!
      if (random.chance(30)) {
        model['merges'] = []
        model['end_of_word_suffix'] = random.pick([null, 'e', '</w>'])
        model['continuing_subword_prefix'] = random.pick([null, '##', 'a'])
      }
      await compare(json, random, 8)
    }
  })

  it('BPE whose byte tokens are not all there', async () => {
    const random = new Random(700)
    const json = tokenizerJson('llama2-style')
    const vocab = json.model['vocab'] as Record<string, number>
    for (const byte of ['<0xE4>', '<0xF0>', '<0xCE>']) {
      vocab[`gone ${byte}`] = vocab[byte]!
      delete vocab[byte]
    }
    json.added_tokens = []
    for (const fuse_unk of [true, false]) await compare({ ...json, model: { ...json.model, fuse_unk } }, random, 60)
  })

  it('Unigram with byte fallback', async () => {
    const random = new Random(800)
    const json = tokenizerJson('unigram')
    const bytes = Array.from({ length: 256 }, (_, b) => [`<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`, -20])
    const decoder = decoders({ type: 'ByteFallback' }, metaspace('always', true))
    const vocab = [...(json.model['vocab'] as unknown[]), ...bytes]
    await compare({ ...json, decoder, model: { ...json.model, byte_fallback: true, vocab } }, random, 60)
    await compare({ ...json, model: { ...json.model, byte_fallback: true } }, random, 60)
  })

  it('WordPiece with short words, WordLevel', async () => {
    const random = new Random(900)
    const json = tokenizerJson('wordpiece')
    await compare({ ...json, model: { ...json.model, max_input_chars_per_word: 4, continuing_subword_prefix: '' } }, random, 60)
    await compare({ ...json, model: { type: 'WordLevel', vocab: json.model['vocab'], unk_token: '[UNK]' } }, random, 60)
  })
})
