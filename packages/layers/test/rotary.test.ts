import { readFileSync } from 'node:fs'
import { Random } from '@aphrodite/testing'
import { describe, expect, test } from 'vitest'
import { ConfigReader } from '../src/config.ts'
import { RotaryEmbedding } from '../src/rotary.ts'
import { type RotaryParameters, readRotary, rotaryParameters } from '../src/rotary-scaling.ts'
import type { Step } from '../src/step.ts'
import { type Bench, bench, read } from './harness.ts'

interface Case {
  readonly name: string
  readonly config: Record<string, unknown> & { head_dim: number; rope_parameters: Record<string, unknown> }
  readonly promptLength: number
  readonly positions: number[]
  readonly cos: number[]
  readonly sin: number[]
}
const { cases } = JSON.parse(readFileSync(new URL('fixtures/rope.json', import.meta.url), 'utf8')) as { cases: Case[] }

/** The same as published checkpoints of transformers 4 write it. */
function asV4({ rope_parameters: { rope_theta, rope_type, partial_rotary_factor, ...rest }, ...config }: Case['config'], key: string) {
  const factor = partial_rotary_factor === undefined ? {} : { partial_rotary_factor }
  return { ...config, ...factor, rope_theta, rope_scaling: rope_type === 'default' ? null : { ...rest, [key]: rope_type } }
}

const step = (b: Bench, positions: readonly number[], promptLength: number) =>
  ({ positions: b.ints(positions), promptLengths: b.ints(positions.map(() => promptLength)) }) as Partial<Step> as Step

/** Turns ones in the first half of each head and zeros in the second, which gives the cosines and then the sines. */
function turned(
  parameters: RotaryParameters,
  headDim: number,
  positions: readonly number[],
  promptLength: number,
  b = bench(),
): number[][] {
  const rotary = new RotaryEmbedding(parameters)
  rotary.materialize('rotary_emb', b.env)
  const shape = [positions.length, 1, headDim]
  const row = Float32Array.from({ length: headDim }, (_, i) => (i < parameters.rotaryDim / 2 ? 1 : i < parameters.rotaryDim ? 0 : 7))
  const q = b.floats(Float32Array.from(positions.flatMap(() => [...row])), shape)
  const k = b.floats(Float32Array.from(positions.flatMap(() => [...row])), shape)
  rotary.apply(q, k, step(b, positions, promptLength))
  expect(read(k)).toEqual(read(q))
  const flat = read(q)
  return positions.map((_, i) => flat.slice(i * headDim, (i + 1) * headDim))
}

describe.each(cases)('$name', ({ config, promptLength, positions, cos, sin }) => {
  const writings: [string, Record<string, unknown>][] = [
    ['rope_parameters', config],
    ['rope_scaling with rope_type', asV4(config, 'rope_type')],
    ['rope_scaling with type', asV4(config, 'type')],
  ]
  test.each(writings)('turns as in Hugging Face, from %s', (_, json) => {
    const parameters = readRotary(new ConfigReader(json), { headDim: config.head_dim })
    const half = parameters.rotaryDim / 2
    expect(half * positions.length).toBe(cos.length)
    const rows = turned(parameters, config.head_dim, positions, promptLength)
    for (const [i, row] of rows.entries()) {
      // The angle is a float32 of up to `position`: two of its last places, and the rounding of the cosine.
      const bound = 3e-7 + positions[i]! * 2 ** -22
      for (let j = 0; j < half; j++) {
        expect(Math.abs(row[j]! - cos[i * half + j]!)).toBeLessThan(bound)
        expect(Math.abs(row[half + j]! - sin[i * half + j]!)).toBeLessThan(bound)
      }
      expect(row.slice(2 * half)).toEqual(row.slice(2 * half).map(() => 7))
    }
  })
})

test('a prompt chooses the frequencies of its sequence for good, and the class of its cache', () => {
  const long = cases.find((c) => c.name === 'longrope, long')!
  const parameters = readRotary(new ConfigReader(long.config), { headDim: 32 })
  const rotary = new RotaryEmbedding(parameters)
  expect([1, 1024, 1025, 4000].map((n) => rotary.sequenceClass(n))).toEqual([0, 0, 1, 1])
  const [short] = turned(parameters, 32, [1500], 1024) // grown beyond 1,024 since
  const [other] = turned(parameters, 32, [1500], 1025)
  expect(short).not.toEqual(other)
  expect(new RotaryEmbedding(rotaryParameters(32, 10_000, 64)).sequenceClass(10_000)).toBe(0)
})

test('tables end where the longest sequence does', () => {
  const parameters = rotaryParameters(32, 10_000, 1 << 20)
  const b = bench(undefined, 'f32', { maxModelLen: 100 })
  expect(turned(parameters, 32, [99], 1, b)[0]).toEqual(turned(rotaryParameters(32, 10_000, 128), 32, [99], 1)[0])
  expect(b.env.arena.usedBytes).toBeLessThan(32_000)
  expect(() => turned(parameters, 32, [100], 1, b)).toThrow(/position 100/)
})

test('a limit below the original length does not mix the two halves of the table', () => {
  const long = cases.find((c) => c.name === 'longrope, short')!
  const parameters = readRotary(new ConfigReader(long.config), { headDim: 32 })
  const b = bench(undefined, 'f32', { maxModelLen: 64 })
  expect(turned(parameters, 32, [63], 64, b)).toEqual(turned(parameters, 32, [63], 64))
})

test('interleaved turns neighbours', () => {
  const b = bench()
  const rotary = new RotaryEmbedding(rotaryParameters(4, 100, 8), { interleaved: true })
  rotary.materialize('', b.env)
  const x = new Random(1).normals(4)
  const q = b.floats(x, [1, 1, 4])
  rotary.apply(q, b.floats(x, [1, 1, 4]), step(b, [3], 4))
  const turn = (a: number, c: number, angle: number) => [
    a * Math.cos(angle) - c * Math.sin(angle),
    c * Math.cos(angle) + a * Math.sin(angle),
  ]
  const expected = [...turn(x[0]!, x[1]!, 3), ...turn(x[2]!, x[3]!, 0.3)]
  expect(read(q).every((v, i) => Math.abs(v - expected[i]!) < 1e-6)).toBe(true)
})

describe('lengths', () => {
  const length = (rope: Record<string, unknown>, more: Record<string, unknown> = {}) =>
    readRotary(new ConfigReader({ max_position_embeddings: 1000, rope_parameters: rope, ...more }), { headDim: 32 }).maxPositions
  test.each([
    [{ rope_type: 'default' }, 1000],
    [{ rope_type: 'linear', factor: 4 }, 4000],
    [{ rope_type: 'dynamic', factor: 2 }, 2000],
    [{ rope_type: 'yarn', factor: 4, original_max_position_embeddings: 1000 }, 4000],
    [{ rope_type: 'yarn', factor: 4, original_max_position_embeddings: 250 }, 1000],
    [{ rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 125 }, 1000],
  ])('%o gives %i positions', (rope, expected) => {
    expect(length(rope)).toBe(expected)
  })
})

describe('what a config cannot mean fails by name', () => {
  const reading = (json: Record<string, unknown>, options = {}) =>
    expect(() => readRotary(new ConfigReader({ max_position_embeddings: 64, ...json }), { headDim: 32, ...options }))
  test('unknown kinds', () => {
    reading({ rope_scaling: { type: 'ntk' } }).toThrow(/rope_type is "ntk"; supported are default, linear/)
    reading({ rope_scaling: { type: 'constructor' } }).toThrow(/rope_type is "constructor"/)
  })
  test('missing and wrong numbers', () => {
    reading({ rope_scaling: { type: 'linear' } }).toThrow(/config.json: rope_scaling: factor is missing/)
    reading({ rope_scaling: { type: 'linear', factor: 0 } }).toThrow(/factor should be greater than 0/)
    reading({ rope_parameters: { rope_type: 'llama3', factor: 8 } }).toThrow(/rope_parameters: low_freq_factor is missing/)
    reading({ rope_scaling: { type: 'longrope', short_factor: [1], long_factor: [1] } }).toThrow(/list of 16 numbers, has 1/)
    reading({ rope_theta: 0 }).toThrow(/rope_theta/)
    reading({ rope_theta: '1e4' }).toThrow(/rope_theta should be a number/)
    reading({ partial_rotary_factor: 0.05 }).toThrow(/partial_rotary_factor 0.05/)
    reading({ rope_scaling: 'linear' }).toThrow(/rope_scaling should be an object/)
  })
  test('angles that are no numbers', () => {
    reading({ rope_scaling: { type: 'longrope', short_factor: new Array(16).fill(1), long_factor: new Array(16).fill(0) } }).not.toThrow()
    const zero = {
      type: 'longrope',
      short_factor: new Array(16).fill(1),
      long_factor: new Array(16).fill(0),
      original_max_position_embeddings: 32,
    }
    reading({ rope_scaling: zero }).toThrow(/config.json: rope_scaling: its longrope rotation is by angles that are no finite numbers/)
    reading({ rope_scaling: { ...zero, long_factor: zero.short_factor, original_max_position_embeddings: 1 } }).toThrow(/at least 2, is 1/)
  })
  test('an entry for each layer type where all are alike, and the other way about', () => {
    const nested = { rope_parameters: { full_attention: { rope_theta: 1e6 } } }
    reading(nested).toThrow(/has an entry for full_attention/)
    reading(nested, { layerType: 'sliding_attention' }).toThrow(/sliding_attention is missing/)
    reading(nested, { layerType: 'full_attention' }).not.toThrow()
  })
})
