import { describe, expect, test } from 'vitest'
import { DEFAULT_SAMPLING_PARAMS, resolveSamplingParams, type SamplingParams } from '../src/index.ts'

describe('resolveSamplingParams', () => {
  test('fills in the defaults, frozen', () => {
    expect(resolveSamplingParams()).toEqual(DEFAULT_SAMPLING_PARAMS)
    const params = resolveSamplingParams({ temperature: 0.5, seed: undefined as never, stopTokenIds: [1], logitBias: { 3: -100 } })
    expect(params).toEqual({ ...DEFAULT_SAMPLING_PARAMS, temperature: 0.5, stopTokenIds: [1], logitBias: { 3: -100 } })
    for (const value of [params, params.logitBias, params.stop, params.stopTokenIds]) expect(Object.isFrozen(value)).toBe(true)
    expect(structuredClone(params)).toEqual(params)
  })

  test.each<[keyof SamplingParams, unknown, string]>([
    ['n', 1e9, 'n should be a whole number from 1 to 64, is 1000000000'],
    ['n', 0, 'n should be a whole number from 1 to 64, is 0'],
    ['n', 1.5, 'n should be a whole number from 1 to 64, is 1.5'],
    ['n', '2', 'n should be a whole number from 1 to 64, is "2"'],
    ['temperature', Number.NaN, 'temperature should be a number from 0 to 100, is NaN'],
    ['temperature', -0.1, 'temperature should be a number from 0 to 100, is -0.1'],
    ['temperature', Number.POSITIVE_INFINITY, 'temperature should be a number from 0 to 100, is Infinity'],
    ['temperature', null, 'temperature should be a number from 0 to 100, is null'],
    ['topP', 0, 'topP should be a number above 0 and at most 1, is 0'],
    ['topP', 1.01, 'topP should be a number above 0 and at most 1, is 1.01'],
    ['minP', 2, 'minP should be a number from 0 to 1, is 2'],
    ['topK', -1, 'topK should be a whole number from 0 to 2147483647, is -1'],
    ['repetitionPenalty', 0, 'repetitionPenalty should be a number above 0 and at most 100, is 0'],
    ['presencePenalty', 3, 'presencePenalty should be a number from -2 to 2, is 3'],
    ['frequencyPenalty', [], 'frequencyPenalty should be a number from -2 to 2, is []'],
    ['seed', 1.5, 'seed should be a whole number from -9007199254740991 to 9007199254740991, or null, is 1.5'],
    ['maxTokens', -1, 'maxTokens should be a whole number from 0 to 2147483647, or null, is -1'],
    ['minTokens', '1', 'minTokens should be a whole number from 0 to 2147483647, is "1"'],
    ['logprobs', 21, 'logprobs should be a whole number from 0 to 20, or null, is 21'],
    ['promptLogprobs', true, 'promptLogprobs should be a whole number from 0 to 20, or null, is true'],
    ['ignoreEos', 1, 'ignoreEos should be true or false, is 1'],
    ['stop', 'x', 'stop should be a list of at most 256 strings, none of them empty, is "x"'],
    ['stop', [''], 'stop should be a list of at most 256 strings, none of them empty, is [""]'],
    ['stopTokenIds', [100], 'stopTokenIds should be a list of token ids from 0 to 99, is [100]'],
    ['stopTokenIds', [-1], 'stopTokenIds should be a list of token ids from 0 to 99, is [-1]'],
    ['logitBias', { 100: 1 }, 'logitBias should have token ids from 0 to 99 as keys, has "100", is {"100":1}'],
    ['logitBias', { a: 1 }, 'logitBias should have token ids from 0 to 99 as keys, has "a", is {"a":1}'],
    ['logitBias', { 1: 101 }, 'logitBias should have numbers from -100 to 100, has 101 for token 1, is {"1":101}'],
    ['logitBias', [1], 'logitBias should be an object from token ids to numbers, is [1]'],
  ])('%s: %j', (key, value, message) => {
    expect(() => resolveSamplingParams({ [key]: value }, { vocabSize: 100 })).toThrow(
      expect.objectContaining({ code: 'BAD_SAMPLING_PARAMS', message }),
    )
  })

  test('an unknown key is an error with a suggestion', () => {
    expect(() => resolveSamplingParams({ topk: 1 } as never)).toThrow('there is no sampling parameter "topk". Did you mean "topK"?')
    expect(() => resolveSamplingParams({ __proto__: null, constructor: 1 } as never)).toThrow('"constructor"')
    expect(() => resolveSamplingParams(null as never)).toThrow('sampling parameters should be an object, are null')
    expect(() => resolveSamplingParams({ minTokens: 3, maxTokens: 2 })).toThrow('minTokens should be at most maxTokens (2), is 3')
  })

  test('n may be bounded otherwise', () => {
    expect(resolveSamplingParams({ n: 200 }, { maxAnswers: 200 }).n).toBe(200)
    expect(() => resolveSamplingParams({ n: 3 }, { maxAnswers: 2 })).toThrow('n should be a whole number from 1 to 2')
  })
})
