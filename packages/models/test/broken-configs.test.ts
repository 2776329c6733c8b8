import { AphroditeError } from '@aphrodite/tensor'
import { Random } from '@aphrodite/testing'
import { expect, test } from 'vitest'
import { ARCHITECTURES } from '../src/architectures.ts'
import { ModelRegistry } from '../src/registry.ts'

const rope = {
  rope_type: 'yarn',
  rope_theta: 1e4,
  factor: 2,
  original_max_position_embeddings: 8,
  beta_fast: 32,
  mscale: 1,
  truncate: true,
}
const llama3 = { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8 }
const longrope = { type: 'longrope', short_factor: [1, 1], long_factor: [2, 2], original_max_position_embeddings: 8, attention_factor: 1 }
const whole: Record<string, unknown> = {
  hidden_size: 8,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 4,
  num_hidden_layers: 2,
  intermediate_size: 8,
  vocab_size: 10,
  max_position_embeddings: 16,
  rms_norm_eps: 1e-6,
  hidden_act: 'silu',
  hidden_activation: 'gelu_pytorch_tanh',
  tie_word_embeddings: false,
  attention_bias: false,
  mlp_bias: false,
  sliding_window: 4,
  use_sliding_window: true,
  max_window_layers: 1,
  layer_types: ['full_attention', 'sliding_attention'],
  sliding_window_pattern: 2,
  query_pre_attn_scalar: 4,
  attn_logit_softcapping: 50,
  final_logit_softcapping: 30,
  partial_rotary_factor: 1,
  rope_theta: 1e4,
  rope_local_base_freq: 1e4,
  rope_scaling: rope,
  rope_parameters: rope,
  original_max_position_embeddings: 8,
}
const values: unknown[] = [
  null,
  undefined,
  true,
  false,
  0,
  -1,
  1,
  3,
  0.5,
  1.5,
  1e9,
  1e12,
  1e300,
  -1e300,
  5e-324,
  '',
  'x',
  'constructor',
  '__proto__',
  [],
  {},
  [[]],
  [null],
  [1],
  [1, 1],
  ['full_attention'],
  ['sliding_attention', 'sliding_attention'],
  ['x', 1],
  { a: 1 },
  rope,
  llama3,
  longrope,
  { full_attention: rope, sliding_attention: llama3 },
  { full_attention: null },
  { rope_type: 'linear' },
  { rope_type: 'dynamic', factor: 1e300 },
  { ...longrope, long_factor: [0, 0] },
  { ...rope, factor: 1e300 },
  { ...rope, rope_theta: 1 },
  { ...llama3, factor: -1 },
]

/** Anything may stand in a config.json: what comes of it is a model or an error with a code. */
test('20,000 broken configurations', { timeout: 60_000 }, async () => {
  const random = new Random(11)
  const pick = <T>(from: readonly T[]): T => from[random.below(from.length)]!
  const names = Object.keys(ARCHITECTURES)
  let models = 0
  for (let i = 0; i < 20_000; i++) {
    const config: Record<string, unknown> = { ...whole, architectures: [pick(names)] }
    if (random.below(2)) delete config['rope_parameters']
    for (let n = random.below(4); n >= 0; n--) {
      const key = pick(Object.keys(whole))
      const inside = config[key]
      if (typeof inside === 'object' && inside !== null && !Array.isArray(inside) && random.below(2))
        config[key] = { ...inside, [pick(Object.keys(longrope).concat(Object.keys(rope), Object.keys(llama3)))]: pick(values) }
      else config[key] = pick(values)
    }
    const result = await ModelRegistry.create(config).then(
      () => 'model',
      (e: unknown) => (e instanceof AphroditeError ? e.code : `${e}: ${JSON.stringify(config)}`),
    )
    expect(['model', 'BAD_CONFIG', 'BAD_LAYER']).toContain(result)
    if (result === 'model') models++
  }
  expect(models).toBeGreaterThan(500)
})
