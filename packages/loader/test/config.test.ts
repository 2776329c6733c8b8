import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { endTokenIds, parseConfig, readConfig, readGenerationConfig } from '../src/config.ts'
import { scratch } from './writer.ts'

const { folder, remove } = scratch()
afterAll(remove)

const parse = (json: object) => parseConfig(JSON.stringify({ architectures: ['X'], ...json }), 'config.json')
const refused = (code: string, message: string) =>
  expect.objectContaining({ name: 'AphroditeError', code, message: expect.stringContaining(message) })

test('both writings say the same', () => {
  const four = parse({ rope_theta: 500000, rope_scaling: { rope_type: 'llama3', factor: 8 }, torch_dtype: 'bfloat16' })
  const five = parse({ rope_parameters: { rope_theta: 500000, rope_type: 'llama3', factor: 8 }, dtype: 'bfloat16' })
  expect(four.json['rope_parameters']).toEqual(five.json['rope_parameters'])
  expect([four.json['dtype'], four.dtype]).toEqual(['bfloat16', 'bf16'])
  expect([five.json['dtype'], five.dtype]).toEqual(['bfloat16', 'bf16'])
  // What the file itself says stays.
  expect(four.json).toMatchObject({ rope_theta: 500000, torch_dtype: 'bfloat16' })
})

test('rotary parameters of older files', () => {
  const rope = (json: object) => parse(json).json['rope_parameters']
  expect(rope({})).toBeUndefined()
  expect(rope({ rope_scaling: null })).toBeUndefined()
  expect(rope({ rope_theta: 10000, rope_scaling: null })).toEqual({ rope_theta: 10000, rope_type: 'default' })
  expect(rope({ rope_scaling: { type: 'linear', factor: 2 } })).toEqual({ rope_type: 'linear', factor: 2 })
  expect(
    rope({ rope_theta: 1, rope_scaling: { type: 'su', rope_type: 'longrope', short_factor: [1] }, partial_rotary_factor: 0.5 }),
  ).toEqual({
    rope_theta: 1,
    rope_type: 'longrope',
    short_factor: [1],
    partial_rotary_factor: 0.5,
  })
  expect(rope({ rope_theta: 1e6, rope_local_base_freq: 1e4, rope_scaling: { rope_type: 'linear', factor: 8 } })).toEqual({
    full_attention: { rope_type: 'linear', factor: 8, rope_theta: 1e6 },
    sliding_attention: { rope_type: 'default', rope_theta: 1e4 },
  })
  const nested = { full_attention: { rope_type: 'default', rope_theta: 5 } }
  expect(rope({ rope_parameters: nested, rope_theta: 7 })).toEqual(nested)
})

test('dtypes', () => {
  const dtypes = {
    float32: 'f32',
    float16: 'f16',
    bfloat16: 'bf16',
    'torch.bfloat16': 'bf16',
    float64: undefined,
    auto: undefined,
    constructor: undefined,
  }
  for (const [written, dtype] of Object.entries(dtypes)) expect(parse({ torch_dtype: written }).dtype, written).toBe(dtype)
  expect(parse({}).dtype).toBeUndefined()
  expect(parse({ dtype: 5 }).dtype).toBeUndefined()
  expect(parse({ dtype: 'float16', torch_dtype: 'float32' }).dtype).toBe('f16')
})

test('what is inside stays as it is', () => {
  const text_config = { rope_theta: 5, torch_dtype: 'float16', eos_token_id: 7 }
  const config = parse({ text_config, time_step_limit: [0, 1] })
  expect(config.json['text_config']).toEqual(text_config)
  expect(endTokenIds(config, undefined)).toEqual([7])
})

test('end tokens: of generation_config.json, else of config.json', () => {
  expect(endTokenIds(parse({ eos_token_id: 2 }), { eos_token_id: [3, 4, 3] })).toEqual([3, 4])
  expect(endTokenIds(parse({ eos_token_id: 2 }), { eos_token_id: 0 })).toEqual([0])
  expect(endTokenIds(parse({ eos_token_id: [2, 5] }), { eos_token_id: null })).toEqual([2, 5])
  expect(endTokenIds(parse({ eos_token_id: 2 }), {})).toEqual([2])
  expect(endTokenIds(parse({}), undefined)).toEqual([])
  for (const eos_token_id of ['2', -1, 1.5, [1, '2'], {}, [[1]]])
    expect(() => endTokenIds(parse({}), { eos_token_id })).toThrow(
      refused('CONFIG_INVALID', 'generation_config.json: eos_token_id should be'),
    )
})

test('refused by name and place', () => {
  const cases: [string, string, string][] = [
    ['', 'CONFIG_SYNTAX', 'config.json, line 1, column 1: should have a value here, has the end'],
    ['{\n  "a": 1,\n}', 'CONFIG_SYNTAX', 'line 3, column 1: should have a name in quotes here, has "}"'],
    ['{\n  "a": 1\n  "b": 2\n}', 'CONFIG_SYNTAX', 'line 3, column 3: should have "," or "}" here, has "\\"b\\": 2'],
    ["{'a': 1}", 'CONFIG_SYNTAX', 'column 2'],
    ['{"a": undefined}', 'CONFIG_SYNTAX', 'column 7'],
    ['{"a": 01}', 'CONFIG_SYNTAX', 'column 8'],
    ['{"a": "x', 'CONFIG_SYNTAX', 'column 7: a string has no end'],
    ['[1]', 'CONFIG_INVALID', 'should be a JSON object'],
    ['null', 'CONFIG_INVALID', 'should be a JSON object'],
    ['{}', 'CONFIG_INVALID', 'architectures should be a list'],
    ['{"architectures": []}', 'CONFIG_INVALID', 'architectures'],
    ['{"architectures": "X"}', 'CONFIG_INVALID', 'architectures'],
    ['{"architectures": [1]}', 'CONFIG_INVALID', 'architectures'],
    ['{"architectures": [""]}', 'CONFIG_INVALID', 'architectures'],
  ]
  for (const [text, code, message] of cases) expect(() => parseConfig(text, 'config.json'), text).toThrow(refused(code, message))
})

test('files', () => {
  expect(() => readConfig(folder)).toThrow(refused('CONFIG_NOT_FOUND', 'has no config.json'))
  expect(() => readConfig(join(folder, 'nowhere'))).toThrow(refused('CONFIG_NOT_FOUND', 'nowhere has no config.json'))
  expect(readGenerationConfig(folder)).toBeUndefined()
  writeFileSync(join(folder, 'config.json'), '\ufeff{"architectures": ["X"], "limit": [0.0, Infinity], "n": NaN}')
  expect(readConfig(folder).json['limit']).toEqual([0, Infinity])
  expect(readConfig(folder).path).toBe(join(folder, 'config.json'))
  writeFileSync(join(folder, 'config.json'), Uint8Array.of(0x7b, 0xff, 0x7d))
  expect(() => readConfig(folder)).toThrow(refused('CONFIG_INVALID', 'is not UTF-8'))
  writeFileSync(join(folder, 'config.json'), ' '.repeat((16 << 20) + 1))
  expect(() => readConfig(folder)).toThrow(refused('CONFIG_INVALID', 'too many for what it should be'))
  writeFileSync(join(folder, 'generation_config.json'), '{"eos_token_id": [1]}')
  expect(readGenerationConfig(folder)).toEqual({ eos_token_id: [1] })
  expect(() => readConfig('a\0b')).toThrow(refused('CONFIG_INVALID', 'cannot be read'))
  mkdirSync(join(folder, 'odd', 'config.json'), { recursive: true })
  expect(() => readConfig(join(folder, 'odd'))).toThrow(refused('CONFIG_INVALID', 'is not a file'))
})
