import { readdirSync, readFileSync } from 'node:fs'
import * as L from '@aphrodite/layers'
import { ArchitectureRegistry, ModelRegistry } from '@aphrodite/models'
import type { Tensor } from '@aphrodite/tensor'
import { Random } from '@aphrodite/testing'
import { describe, expect, test } from 'vitest'
import type { FusedFits } from '../src/fused-kernels.ts'
import { fuse } from '../src/fusion.ts'
import { FUSION_RULES } from '../src/fusion-rules.ts'
import { DecodeStep, type DecodeStepOptions } from './decode-step.ts'
import { everythingFits } from './emulated.ts'

const root = new URL('../../../tests/fixtures/', import.meta.url)
const FIXTURES = ['hf', 'variants'].flatMap((group) =>
  readdirSync(new URL(group, root), { withFileTypes: true }).flatMap((e) => (e.isDirectory() ? [`${group}/${e.name}`] : [])),
)
const configOf = (name: string) => JSON.parse(readFileSync(new URL(`${name}/config.json`, root), 'utf8')) as Record<string, unknown>
const open = (name: string): Promise<L.CausalLM> => ModelRegistry.create(configOf(name), name)

const fused = (step: DecodeStep, fits = everythingFits, rules = FUSION_RULES) =>
  fuse(step.calls, { fits, layout: step.device, rules }).entries

/** Bits: the emulated fused ops round where the ops that they stand for do. */
function expectEqual(step: DecodeStep, entries = fused(step)): void {
  const want = step.run(step.calls)
  const got = step.run(entries.map((e) => e.call))
  expect(want.logits.every(Number.isFinite)).toBe(true)
  expect(got.logits).toEqual(want.logits)
  expect(got.caches).toEqual(want.caches)
}

describe('a fused step computes what the step computes', () => {
  test.each(FIXTURES)('%s', async (name) => {
    const several: DecodeStepOptions[] = [
      { contexts: [1, 20, 50], dtype: 'bf16' },
      { contexts: [9, 30], queries: 3 },
    ]
    const cases: DecodeStepOptions[] = [{ contexts: [37] }, ...(name.startsWith('hf/') ? several : [])]
    for (const options of cases) {
      const step = new DecodeStep(await open(name), options)
      expect(fused(step).length).toBeLessThan(step.calls.length)
      expectEqual(step)
    }
  })

  test('whatever a device has kernels for, and whatever rules there are', async () => {
    const random = new Random(3)
    for (const name of ['hf/llama', 'hf/qwen3', 'hf/gemma3', 'hf/phi3-longrope', 'hf/qwen2']) {
      const model = () => open(name)
      const step = new DecodeStep(await model(), { contexts: [12, 33] })
      for (let i = 0; i < 6; i++) {
        const some = () => random.uniform() < 0.6
        const fits: FusedFits = { linear: some, norms: some, attention: some, rotaryWrite: some }
        const rules = [...FUSION_RULES].filter(some).sort(() => random.uniform() - 0.5)
        expectEqual(step, fused(step, fits, rules))
      }
    }
  })
})

describe('what a layer becomes', () => {
  const opsOf = (step: DecodeStep) => fused(step).map(({ call }) => call.op)
  const LAYER = ['fusedLinear', 'fusedAttention', 'fusedLinear', 'fusedLinear', 'fusedLinear']

  test.each(['hf/llama', 'hf/qwen2', 'hf/qwen3', 'hf/phi3', 'hf/mistral'])('%s: five ops', async (name) => {
    expect(opsOf(new DecodeStep(await open(name)))).toEqual(['embedding', ...LAYER, ...LAYER, 'fusedLinear'])
    const several = opsOf(new DecodeStep(await open(name), { contexts: [4, 9] }))
    expect(several).toEqual(['embedding', ...LAYER, ...LAYER, 'rmsNorm', 'gatherRows', 'linear'])
  })

  test('hf/qwen3: which rules made them', async () => {
    const entries = fused(new DecodeStep(await open('hf/qwen3')))
    const [, qkv, attention, o, gateUp, down] = entries
    expect([qkv, attention, o, gateUp, down].map((e) => e!.rules)).toEqual([
      ['norm of zero plus residual', 'norm inside the linears that read it'],
      ['norms, rotation and cache in attention'],
      ['linear adds to the residual, then norm'],
      ['linear adds to the residual, then norm', 'linear, activation and product', 'norm inside the linears that read it'],
      ['linear adds to the residual, then norm'],
    ])
  })

  test('hf/gemma2: seven ops, as norms stand on both sides of a block', async () => {
    const layer = ['fusedLinear', 'fusedAttention', 'linear', 'fusedNorms', 'fusedLinear', 'linear', 'fusedNorms']
    expect(opsOf(new DecodeStep(await open('hf/gemma2')))).toEqual(
      ['embedding', 'scale', ...layer, 'linear', ...layer.slice(1), 'linear', 'softCap'], // the first norm is inside its linear
    )
  })
})

/** Somebody else's model: attention and MLP side by side, biases, no rotation of the MLP's kind, its own residual. */
class ParallelLayer extends L.Module {
  readonly norm = new L.RMSNorm(16, 1e-5)
  readonly qkv = new L.QKVParallelLinear(16, { heads: 2, kvHeads: 1, headDim: 8 }, { names: ['q', 'k', 'v'], bias: true })
  readonly rotary: L.RotaryEmbedding
  readonly attn = new L.Attention({ heads: 2, kvHeads: 1, headDim: 8 })
  readonly out = new L.RowParallelLinear(16, 16, { bias: true })
  readonly up = new L.MergedColumnParallelLinear(16, { gate: 24, up: 24 })
  readonly down = new L.RowParallelLinear(24, 16)
  constructor(rotary: L.RotaryEmbedding) {
    super()
    this.rotary = rotary
  }
  forward(h: Tensor, step: L.Step): Tensor {
    const x = this.norm.forward(h)
    const { q, k, v } = this.qkv.heads(x)
    this.rotary.apply(q, k, step)
    const a = this.out.forward(this.attn.forward(q, k, v, step))
    const m = this.down.forward(L.activateAndMul(this.up.forward(x), 'gelu'))
    h.kernels.add(h, h, a)
    h.kernels.add(h, m, h)
    return h
  }
}
class ParallelForCausalLM extends L.CausalLM {
  readonly embed = new L.VocabParallelEmbedding(32, 16)
  readonly rotary = new L.RotaryEmbedding(L.rotaryParameters(8, 10_000, 64))
  readonly layers = [new ParallelLayer(this.rotary), new ParallelLayer(this.rotary)]
  readonly head = new L.ParallelLMHead(32, 16)
  readonly vocabSize = 32
  readonly maxModelLen = 64
  forward(step: L.Step): Tensor {
    let x = this.embed.forward(step.inputIds)
    for (const layer of this.layers) x = step.workspace.tidy(x, (x) => layer.forward(x, step))
    return x
  }
  logits(hidden: Tensor, step: L.Step): Tensor {
    return this.head.logits(hidden, step)
  }
}

describe('a model of a third party', () => {
  const registry = new ArchitectureRegistry()
  registry.registerModel(
    'ParallelForCausalLM',
    L.defineModel({ architectures: ['ParallelForCausalLM'], readConfig: (c) => c, create: () => new ParallelForCausalLM() }),
  )
  test('is fused alike', async () => {
    const step = new DecodeStep(await registry.create({ architectures: ['ParallelForCausalLM'] }), { contexts: [7] })
    const layer = ['fusedLinear', 'fusedAttention', 'fusedLinear', 'fusedLinear', 'fusedLinear']
    expect(
      fused(step)
        .map((e) => e.call.op)
        .sort(),
    ).toEqual(['embedding', ...layer, ...layer, 'linear'].sort())
    expectEqual(step)
  })
})
