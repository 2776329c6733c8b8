import { describe, expect, test } from 'vitest'
import { ModelRegistry } from '../src/registry.ts'

const base = {
  hidden_size: 8,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 4,
  num_hidden_layers: 2,
  intermediate_size: 8,
  vocab_size: 10,
  max_position_embeddings: 16,
}
const create = (architecture: string, more: Record<string, unknown> = {}) =>
  ModelRegistry.create({ architectures: [architecture], ...base, ...more }, 'my/config.json')

describe('a value that a model cannot honour fails by name', () => {
  test.each<[string, Record<string, unknown>, RegExp]>([
    ['Llama', { hidden_act: 'tanh' }, /my\/config\.json: hidden_act is "tanh"; supported are silu/],
    ['Llama', { hidden_size: undefined }, /hidden_size is missing/],
    ['Llama', { vocab_size: 0 }, /vocab_size should be a whole number of at least 1, is 0/],
    ['Llama', { num_hidden_layers: 1.5 }, /num_hidden_layers should be a whole number/],
    ['Llama', { num_hidden_layers: 1e12 }, /num_hidden_layers should be at most 10000/],
    ['Llama', { max_position_embeddings: 2e9 }, /makes 2000000000 positions; at most 16777216/],
    ['Llama', { rope_scaling: { type: 'linear', factor: 1e12 } }, /positions; at most/],
    ['Llama', { num_key_value_heads: 4 }, /num_attention_heads 2 is not a multiple of num_key_value_heads 4/],
    ['Llama', { tie_word_embeddings: 'yes' }, /tie_word_embeddings should be a boolean, is "yes"/],
    ['Llama', { rms_norm_eps: '1e-6' }, /rms_norm_eps should be a number/],
    ['Llama', { rope_scaling: { rope_type: 'mrope' } }, /rope_type is "mrope"/],
    ['Llama', { max_position_embeddings: undefined }, /max_position_embeddings is missing/],
    ['Ministral', { layer_types: ['full_attention'] }, /layer_types names 1 layers/],
    [
      'Qwen2',
      { layer_types: ['full_attention', 'sliding_attention'] },
      /layer_types has "sliding_attention", but there is no sliding_window/,
    ],
    ['Qwen3', { layer_types: ['linear_attention', 'full_attention'] }, /layer_types has "linear_attention"/],
    ['Gemma', { hidden_act: 'relu' }, /hidden_act is "relu"; this model supports only "gelu" and "gelu_pytorch_tanh"/],
    ['Gemma3', { use_bidirectional_attention: true }, /use_bidirectional_attention is true; this model supports only false/],
    ['Gemma3', { attn_logit_softcapping: 50 }, /attn_logit_softcapping is given/],
    ['Gemma2', { query_pre_attn_scalar: 'x' }, /query_pre_attn_scalar should be a number/],
    [
      'Phi3',
      { rope_scaling: { type: 'su', short_factor: [1, 1], long_factor: [1] } },
      /rope_scaling: long_factor should be a list of 2 numbers, has 1/,
    ],
  ])('%s %j', async (family, more, message) => {
    await expect(create(`${family}ForCausalLM`, more)).rejects.toThrow(message)
  })
})

describe('the longest sequence', () => {
  test.each<[string, Record<string, unknown>, number]>([
    ['Llama', {}, 16],
    ['Llama', { rope_scaling: { type: 'linear', factor: 2 } }, 32],
    ['Gemma3', { rope_scaling: { rope_type: 'linear', factor: 8 } }, 16],
  ])('%s %j: %i', async (family, more, length) => {
    expect((await create(`${family}ForCausalLM`, more)).maxModelLen).toBe(length)
  })
})

test('only prompts of LongRoPE and dynamic NTK fall into classes', async () => {
  const classes = async (more: Record<string, unknown>) => {
    const model = await create('Phi3ForCausalLM', more)
    return [8, 9].map((n) => model.sequenceClass(n))
  }
  const long = { rope_scaling: { type: 'longrope', short_factor: [1, 1], long_factor: [2, 2] }, original_max_position_embeddings: 8 }
  expect(await classes({})).toEqual([0, 0])
  expect(await classes(long)).toEqual([0, 1])
  expect(await classes({ rope_scaling: { type: 'dynamic', factor: 2 }, max_position_embeddings: 8 })).toEqual([0, 1])
})
