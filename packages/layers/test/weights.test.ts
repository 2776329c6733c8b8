import { contiguousStrides, type NamedArray, singleRank } from '@aphrodite/tensor'
import { describe, expect, test } from 'vitest'
import { readActivation } from '../src/activation.ts'
import { readHeads, readSlidingWindow, readWindows } from '../src/attention-config.ts'
import { ConfigReader } from '../src/config.ts'
import { ColumnParallelLinear, MergedColumnParallelLinear, ReplicatedLinear, RowParallelLinear } from '../src/linear.ts'
import { Module, walk } from '../src/module.ts'
import { LayerNorm, RMSNorm } from '../src/norm.ts'
import { QKVParallelLinear } from '../src/qkv.ts'
import { renamed } from '../src/weights.ts'
import { Block, bench, checkpoint, materialize, read, worst } from './harness.ts'

const model = () =>
  Block.of({
    layers: Block.of({ 0: Block.of({ selfAttn: Block.of({ qkvProj: new QKVParallelLinear(4, { heads: 2, kvHeads: 1, headDim: 2 }) }) }) }),
    mlp: new MergedColumnParallelLinear(4, { gate_proj: 6, up_proj: 6 }),
    norm: new RMSNorm(4, 1e-6),
  })
const shapes = {
  'layers.0.self_attn.q_proj.weight': [4, 4],
  'layers.0.self_attn.k_proj.weight': [2, 4],
  'layers.0.self_attn.v_proj.weight': [2, 4],
  'gate_proj.weight': [6, 4],
  'up_proj.weight': [6, 4],
  'norm.weight': [4],
}

describe('loading by name', () => {
  const fill = (change: (s: Record<string, readonly number[]>) => void) => () => {
    const changed: Record<string, readonly number[]> = { ...shapes }
    change(changed)
    materialize(model(), bench().env).fill(checkpoint(changed))
  }

  test('a checkpoint that fits', () => {
    expect(fill(() => {})).not.toThrow()
  })
  test('a part of a merged layer that is missing', () => {
    expect(fill((s) => delete s['up_proj.weight'])).toThrow(/Missing: up_proj\.weight\./)
    expect(fill((s) => delete s['layers.0.self_attn.k_proj.weight'])).toThrow(/Missing: layers\.0\.self_attn\.k_proj\.weight\./)
  })
  test('a tensor that nobody asked for', () => {
    expect(fill((s) => (s['norm.bias'] = [4]))).toThrow(/Not expected: norm\.bias\./)
  })
  test('a wrong shape, also with the right number of elements', () => {
    expect(fill((s) => (s['gate_proj.weight'] = [4, 6]))).toThrow(/gate_proj\.weight has the shape \[4,6\].*makes it \[6,4\]/)
    expect(fill((s) => (s['norm.weight'] = [4, 1]))).toThrow(/norm\.weight has the shape \[4,1\]/)
    expect(fill((s) => (s['layers.0.self_attn.v_proj.weight'] = [3, 4]))).toThrow(/v_proj\.weight has the shape \[3,4\]/)
  })
  test('integers where numbers should be', () => {
    const weights = checkpoint(shapes).map((w) =>
      w.name === 'up_proj.weight' ? { ...w, array: { ...w.array, dtype: 'i32' as const } } : w,
    )
    expect(() => materialize(model(), bench().env).fill(weights)).toThrow(
      /up_proj\.weight is i32 in the checkpoint; this layer takes f32, bf16, f16, f64/,
    )
  })
  test('a long list is cut', () => {
    expect(fill((s) => Array.from({ length: 20 }, (_, i) => (s[`x.${i}`] = [1])))).toThrow(/x\.7 and 12 more\./)
  })
  test('frequencies that old exports contain', () => {
    expect(fill((s) => (s['layers.0.self_attn.rotary_emb.inv_freq'] = [1]))).not.toThrow()
  })
  test('a checkpoint under other names', () => {
    const theirs = checkpoint({ 'gpt.ln.g': [4], 'gpt.ln.mask': [9] })
    const map = materialize(Block.of({ norm: new RMSNorm(4, 1e-6) }), bench().env)
    expect(() => map.fill(renamed(theirs, (n) => (n.endsWith('mask') ? undefined : n.replace('gpt.ln.g', 'norm.weight'))))).not.toThrow()
  })
  test('a bias that only one rank keeps is known to the others', () => {
    const env = bench({ ...singleRank, rank: 1, size: 2 }).env
    const m = Block.of({ oProj: new RowParallelLinear(4, 4, { bias: true }) })
    expect(() => materialize(m, env).fill(checkpoint({ 'o_proj.weight': [4, 4], 'o_proj.bias': [4] }))).not.toThrow()
  })
  test('bf16 files into f32 models and f32 files into bf16 models', () => {
    for (const dtype of ['f32', 'bf16'] as const) {
      const b = bench(undefined, dtype)
      const m = Block.of({ a: new ReplicatedLinear(2, 1) })
      const bytes =
        dtype === 'f32' ? new Uint8Array(Uint16Array.of(0x3fc0, 0xc000).buffer) : new Uint8Array(Float32Array.of(1.5, -2).buffer)
      const weight: NamedArray = {
        name: 'a.weight',
        array: { bytes, dtype: dtype === 'f32' ? 'bf16' : 'f32', shape: [1, 2], strides: contiguousStrides([1, 2]) },
      }
      materialize(m, b.env).fill([weight])
      expect(read(m.a.forward(b.floats(Float32Array.of(1, 1), [1, 2])))).toEqual([-0.5])
    }
  })
})

describe('names', () => {
  test('are property names in snake case, a shared module under its first', () => {
    class Shared extends Module {
      readonly qNorm = new RMSNorm(4, 1e-6)
    }
    class Tree extends Module {
      readonly embedTokens = new ReplicatedLinear(4, 4)
      readonly layers = [new Shared(), new Shared()]
      readonly again = this.layers[1]
      readonly mlpGateUp2Proj = new ColumnParallelLinear(4, 4)
      protected readonly size = 3
    }
    expect([...walk(new Tree())].map(([path]) => path)).toEqual([
      '',
      'embed_tokens',
      'layers.0',
      'layers.0.q_norm',
      'layers.1',
      'layers.1.q_norm',
      'mlp_gate_up2_proj',
    ])
  })
  test('of merged parts may be given', () => {
    const map = materialize(
      Block.of({
        attn: Block.of({ wqkv: new QKVParallelLinear(4, { heads: 2, kvHeads: 2, headDim: 2 }, { names: ['wq', 'wk', 'wv'], bias: true }) }),
      }),
      bench().env,
    )
    expect([...map.slots.keys()]).toEqual(
      ['wq', 'wk', 'wv'].map((n) => `attn.${n}.weight`).concat(['wq', 'wk', 'wv'].map((n) => `attn.${n}.bias`)),
    )
  })
})

describe('norms', () => {
  const x = [1, -2, 3, 0.5]
  const weights = checkpoint({ 'norm.weight': [4], 'norm.bias': [4] })
  const [w, bias] = weights.map((n) => [...new Float32Array(n.array.bytes.slice().buffer)]) as [number[], number[]]

  test.each([0, 1])('RMSNorm with an offset of %i, fused with the residual', (weightOffset) => {
    const b = bench()
    const m = Block.of({ norm: new RMSNorm(4, 0.1, { weightOffset }) })
    materialize(m, b.env).fill(weights.slice(0, 1))
    const norm = (v: readonly number[]) =>
      v.map((n, i) => (n / Math.sqrt(v.reduce((s, y) => s + y * y, 0) / 4 + 0.1)) * (w[i]! + weightOffset))
    const t = () => b.floats(Float32Array.from(x), [1, 4])
    expect(worst(read(m.norm.forward(t())), norm(x))).toBeLessThan(1e-6)
    expect(worst(read(m.norm.inPlace(t())), norm(x))).toBeLessThan(1e-6)
    const residual = b.floats(Float32Array.of(1, 1, 1, 1), [1, 4])
    expect(worst(read(m.norm.addTo(residual, t())), norm(x.map((n) => n + 1)))).toBeLessThan(1e-6)
    expect(read(residual)).toEqual([2, -1, 4, 1.5])
  })
  test('LayerNorm with and without a bias', () => {
    for (const hasBias of [true, false]) {
      const b = bench()
      const m = Block.of({ norm: new LayerNorm(4, 0.1, { bias: hasBias }) })
      materialize(m, b.env).fill(hasBias ? weights : weights.slice(0, 1))
      const norm = (v: readonly number[]) => {
        const mean = v.reduce((s, y) => s + y, 0) / 4
        const variance = v.reduce((s, y) => s + (y - mean) ** 2, 0) / 4
        return v.map((n, i) => ((n - mean) / Math.sqrt(variance + 0.1)) * w[i]! + (hasBias ? bias[i]! : 0))
      }
      expect(worst(read(m.norm.forward(b.floats(Float32Array.from(x), [1, 4]))), norm(x))).toBeLessThan(1e-6)
      const residual = b.floats(Float32Array.of(1, 0, 1, 2), [1, 4])
      expect(worst(read(m.norm.addTo(residual, b.floats(Float32Array.from(x), [1, 4]))), norm([2, -2, 4, 2.5]))).toBeLessThan(1e-6)
      expect(read(residual)).toEqual([2, -2, 4, 2.5])
    }
  })
})

describe('config.json', () => {
  const c = (json: Record<string, unknown>) => new ConfigReader({ hidden_size: 64, num_attention_heads: 4, ...json })
  test('heads', () => {
    expect(readHeads(c({}))).toEqual({ heads: 4, kvHeads: 4, headDim: 16 })
    expect(readHeads(c({ head_dim: null, num_key_value_heads: null }), 128)).toEqual({ heads: 4, kvHeads: 4, headDim: 16 })
    expect(readHeads(c({ num_key_value_heads: 1 }), 128)).toEqual({ heads: 4, kvHeads: 1, headDim: 128 })
    expect(readHeads(c({ hidden_size: 10, head_dim: 7 }))).toEqual({ heads: 4, kvHeads: 4, headDim: 7 })
    expect(() => readHeads(c({ num_key_value_heads: 3 }))).toThrow(/num_attention_heads 4 is not a multiple of num_key_value_heads 3/)
    expect(() => readHeads(c({ hidden_size: 10 }))).toThrow(
      /hidden_size 10 is not a multiple of num_attention_heads 4, and head_dim is missing/,
    )
    expect(() => readHeads(c({ head_dim: 2.5 }))).toThrow(/head_dim should be a whole number/)
  })
  test('windows', () => {
    expect(readSlidingWindow(c({}), 4096)).toBe(4096)
    expect(readSlidingWindow(c({ sliding_window: null }), 4096)).toBe(0)
    expect(() => readSlidingWindow(c({ sliding_window: -1 }), 0)).toThrow(/sliding_window/)
    const odd = (i: number) => i % 2 === 1
    expect(readWindows(c({}), 3, 8, odd)).toEqual([0, 8, 0])
    expect(readWindows(c({ layer_types: ['sliding_attention', 'full_attention'] }), 2, 8, odd)).toEqual([8, 0])
    expect(() => readWindows(c({ layer_types: ['full_attention'] }), 2, 8, odd)).toThrow(/names 1 layers, num_hidden_layers is 2/)
    expect(() => readWindows(c({ layer_types: ['chunked_attention'] }), 1, 8, odd)).toThrow(/"chunked_attention"/)
    expect(() => readWindows(c({ layer_types: ['sliding_attention'] }), 1, 0, odd)).toThrow(/no sliding_window/)
  })
  test('activations', () => {
    expect(readActivation(c({ hidden_act: 'gelu_pytorch_tanh' }), 'hidden_act')).toBe('geluTanh')
    expect(readActivation(c({}), 'hidden_act', 'silu')).toBe('silu')
    expect(() => readActivation(c({ hidden_act: 'toString' }), 'hidden_act')).toThrow(/hidden_act is "toString"; supported are silu/)
  })
})
