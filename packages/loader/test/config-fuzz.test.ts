import { AphroditeError } from '@aphrodite/tensor'
import { expect, test } from 'vitest'
import { endTokenIds, parseConfig } from '../src/config.ts'
import { JsonReader, PYTHON_JSON, STRICT_JSON } from '../src/json-reader.ts'
import { parseIndex } from '../src/weight-files.ts'
import { Mutator } from './mutations.ts'

const configs = [
  {
    architectures: ['LlamaForCausalLM'],
    hidden_size: 64,
    rms_norm_eps: 1e-5,
    rope_theta: 500000.0,
    rope_scaling: { type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4 },
    eos_token_id: [1, 2],
    torch_dtype: 'bfloat16',
    tie_word_embeddings: false,
    name: 'a "b" \\ é 𝄞',
  },
  {
    architectures: ['A', 'B'],
    rope_parameters: { full_attention: { rope_theta: 1e6 } },
    text_config: { eos_token_id: 3 },
    dtype: 'float32',
    sliding_window: null,
  },
].map((json) => JSON.stringify(json, null, 1))

test('10^5 damaged configurations are read or refused, nothing else', { timeout: 60_000 }, () => {
  const m = new Mutator(3)
  let read = 0
  let slowest = 0
  for (let i = 0; i < 100_000; i++) {
    let text = m.pick(configs)
    for (let j = m.below(4); j >= 0; j--) text = m.text(text)
    const start = performance.now()
    try {
      const config = parseConfig(text, 'config.json')
      endTokenIds(config, undefined)
      expect(config.architectures.length).toBeGreaterThan(0)
      read++
    } catch (error) {
      if (!(error instanceof AphroditeError && error.code.startsWith('CONFIG_'))) throw error
      expect(error.message.length).toBeLessThan(1000)
    }
    slowest = Math.max(slowest, performance.now() - start)
  }
  expect(read).toBeGreaterThan(2_000)
  expect(read).toBeLessThan(90_000)
  expect(slowest).toBeLessThan(5_000)
})

test('damaged JSON is read exactly as JSON.parse reads it, or refused as it refuses it', () => {
  const m = new Mutator(4)
  let both = 0
  for (let i = 0; i < 20_000; i++) {
    let text = m.pick(configs)
    for (let j = m.below(3); j >= 0; j--) text = m.text(text)
    // What is our own: half a character is refused.
    if (/\\u[dD][89a-fA-F]|\p{Surrogate}/u.test(text)) continue
    let theirs: unknown
    let ours: unknown
    try {
      theirs = JSON.parse(text)
    } catch {
      theirs = 'refused'
    }
    try {
      ours = JsonReader.parse(text, { python: false, uniqueKeys: false })
    } catch {
      ours = 'refused'
    }
    expect(ours).toEqual(theirs)
    if (theirs !== 'refused') both++
  }
  expect(both).toBeGreaterThan(500)
})

test('names given twice, Python numbers, nesting and half characters', () => {
  expect(JsonReader.parse('{"a": 1, "a": 2}', PYTHON_JSON)).toEqual({ a: 2 })
  expect(() => JsonReader.parse('{"a": 1, "a": 2}', STRICT_JSON)).toThrow('"a" is there twice')
  expect(JsonReader.parse('[NaN, Infinity, -Infinity]', PYTHON_JSON)).toEqual([Number.NaN, Infinity, -Infinity])
  expect(() => JsonReader.parse('[NaN]', STRICT_JSON)).toThrow('should have a value here, has "NaN]"')
  expect(() => JsonReader.parse('['.repeat(1e6), PYTHON_JSON)).toThrow('nested more than 100 deep')
  expect(() => JsonReader.parse('{"a":'.repeat(1e5), PYTHON_JSON)).toThrow('nested more than 100 deep')
  expect(() => JsonReader.parse('"\\ud800"', PYTHON_JSON)).toThrow('lone surrogate')
  expect(JsonReader.parse('"\\ud834\\udd1e\\/\\b"', STRICT_JSON)).toBe('𝄞/\b')
  const odd = JsonReader.parse('{"__proto__": {"x": 1}, "constructor": 2}', PYTHON_JSON) as Record<string, unknown>
  expect(Object.getPrototypeOf(odd)).toBe(Object.prototype)
  expect(Object.keys(odd)).toEqual(['__proto__', 'constructor'])
})

test('damaged indexes are read or refused, nothing else', () => {
  const index = JSON.stringify({
    metadata: { total_size: 12 },
    weight_map: { 'a.weight': 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' },
  })
  const m = new Mutator(5)
  let read = 0
  for (let i = 0; i < 20_000; i++) {
    let text = index
    for (let j = m.below(3); j >= 0; j--) text = m.text(text)
    try {
      const files = [...parseIndex(text, 'index.json').values()]
      expect(files.every((file) => file.endsWith('.safetensors') && !/[/\\\0]/.test(file))).toBe(true)
      read++
    } catch (error) {
      if (!(error instanceof AphroditeError && error.code === 'CHECKPOINT_INDEX')) throw error
    }
  }
  expect(read).toBeGreaterThan(200)
})
