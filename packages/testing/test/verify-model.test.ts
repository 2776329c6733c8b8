import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ColumnParallelLinear, defineModel, ReplicatedLinear, renamed } from '@aphrodite/layers'
import { LlamaAttention, LlamaDecoderLayer, LlamaForCausalLM, LlamaMLP } from '@aphrodite/models/llama'
import { type LlamaConfig, readLlamaConfig } from '@aphrodite/models/llama-config'
import type { NamedArray, Tensor } from '@aphrodite/tensor'
import { describe, expect, test } from 'vitest'
import { type ConformanceReport, formatReport, type VerifyModelOptions, verifyModel } from '../src/verify-model.ts'

const CONFIG = {
  architectures: ['CousinForCausalLM'],
  hidden_size: 32,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  num_hidden_layers: 2,
  intermediate_size: 56,
  vocab_size: 71,
  max_position_embeddings: 128,
}

/** Llama with another MLP: what a mistake is made in. */
const cousin = (mlp: (c: LlamaConfig) => LlamaMLP, Model: typeof LlamaForCausalLM = LlamaForCausalLM) =>
  defineModel({
    architectures: ['CousinForCausalLM'],
    readConfig: (c) => readLlamaConfig(c),
    create: (c) => new Model(c, (i, rotary) => new LlamaDecoderLayer(c, new LlamaAttention(c, i, rotary), mlp(c))),
  })
const plain = (c: LlamaConfig) => new LlamaMLP(c)
const verify = (mlp: (c: LlamaConfig) => LlamaMLP, options: VerifyModelOptions = {}): Promise<ConformanceReport> =>
  verifyModel(cousin(mlp), { config: CONFIG, assert: false, ...options })

describe('verifyModel', { timeout: 60_000 }, () => {
  test('passes a model that is right, and says what it did', async () => {
    const report = await verify(plain, { assert: true, ranks: [2, 5] })
    const names = report.runs.map((r) => r.name)
    for (const part of [
      'chunks of 7',
      'token by token',
      'cpu bfloat16',
      '2 ranks',
      'cuda',
      'in a crowd',
      'overlap',
      'prefix hits',
      'preemption',
    ])
      expect(
        names.some((name) => name.includes(part)),
        part,
      ).toBe(true)
    expect(report.runs.find((r) => r.name.startsWith('5 ranks'))!.note).toMatch(/^left out: .*4 heads cannot be shared by 5 ranks/)
    expect(formatReport(report)).toMatch(/^CousinForCausalLM: conforms\n {2}ok /)
  })

  test('names chunks first for a model that looks at how many tokens a step has, and where', async () => {
    class Counting extends LlamaMLP {
      override forward(x: Tensor): Tensor {
        const out = super.forward(x)
        out.kernels.scale(out, out, 1 + x.dim(0) / 100)
        return out
      }
    }
    await expect(
      verifyModel(
        cousin((c) => new Counting(c)),
        { config: CONFIG },
      ),
    ).rejects.toMatchObject({
      code: 'NOT_CONFORMING',
      message: expect.stringMatching(
        /^CousinForCausalLM: reference backend float32 \(against itself, token by token\): its logits differ first at position 0 of prompt 0 \(5 tokens\), by \S+ of their size/,
      ),
      report: { passed: false },
    })
  })

  test('names the ranks for a model whose layers are shared wrongly', async () => {
    class Unsummed extends LlamaMLP {
      // @ts-expect-error: every rank has all of it, and gives it a share of its inputs
      override readonly downProj = new ColumnParallelLinear(56, 32, { gatherOutput: true, bias: false })
    }
    const { problems } = await verify((c) => new Unsummed(c), { ranks: [2] })
    expect(problems).toHaveLength(1)
    expect(problems[0]).toMatch(/^2 ranks, cpu float32.*down_proj: it takes 56 inputs, and was given/)
  })

  test('names a crowd for a model that remembers what it was asked before', async () => {
    class Remembering extends LlamaMLP {
      #most = 0
      override forward(x: Tensor): Tensor {
        this.#most = Math.max(this.#most, x.dim(0) % 13)
        const out = super.forward(x)
        if (this.#most > 11) out.kernels.scale(out, out, 1.5)
        return out
      }
    }
    const { problems } = await verify((c) => new Remembering(c), { ranks: [] })
    expect(problems.length).toBeGreaterThan(0)
    expect(problems.join('\n')).toMatch(/should have the same bits|at most/)
  })

  test('tells a broken contract by name, and goes no further', async () => {
    class Hiding extends LlamaMLP {
      readonly experts = new Map([[0, new ReplicatedLinear(32, 32)]])
    }
    const { problems } = await verify((c) => new Hiding(c))
    expect(problems).toEqual([
      expect.stringMatching(
        /^declared and materialised: UNREGISTERED_LAYER: model\.layers\.0\.mlp \(Hiding\): experts holds a ReplicatedLinear/,
      ),
    ])
    class Keeping extends LlamaMLP {
      #last: Tensor | undefined
      override forward(x: Tensor): Tensor {
        if (x.dim(0) === 1 && this.#last) x.kernels.copy(x, this.#last.narrow(0, 0, 1))
        this.#last = x
        return super.forward(x)
      }
    }
    const kept = await verify((c) => new Keeping(c))
    expect(kept.problems[0]).toMatch(/^reference backend float32: STALE_TENSOR: copy was given, in .*Keeping\.forward/)
  })

  test('runs a loadWeights of the model’s own when it is given the names of its checkpoints', async () => {
    class Renaming extends LlamaForCausalLM {
      override loadWeights(weights: Iterable<NamedArray>): void {
        super.loadWeights(renamed(weights, (name) => name.replace('transformer.', 'model.')))
      }
    }
    const definition = cousin(plain, Renaming)
    const without = await verifyModel(definition, { config: CONFIG, ranks: [], cuda: false })
    expect(without.runs.find((r) => r.name === 'loadWeights')!.note).toMatch(/give `tensors` or `reference`/)
    const tensors = { 'transformer.norm.weight': { shape: [32] } }
    const { problems } = await verifyModel(definition, { config: CONFIG, tensors, assert: false })
    expect(problems[0]).toMatch(/WEIGHT_NAMES.*Missing: model\.embed_tokens\.weight/)
  })

  test('compares with a reference first of all', async () => {
    const fixture = fileURLToPath(new URL('../../../tests/fixtures/hf/llama', import.meta.url))
    const folder = mkdtempSync(join(tmpdir(), 'verify-'))
    try {
      cpSync(fixture, folder, { recursive: true })
      const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'))
      writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, rms_norm_eps: 0.1 }))
      const { problems } = await verifyModel('LlamaForCausalLM', { reference: folder, assert: false, ranks: [] })
      expect(problems[0]).toMatch(
        /^reference backend float32 \(against reference\.safetensors\): its logits differ first at position 0 of prompt 0/,
      )
      writeFileSync(join(folder, 'config.json'), 'no')
      await expect(verifyModel('LlamaForCausalLM', { reference: folder })).rejects.toMatchObject({ code: 'BAD_REFERENCE_FOLDER' })
    } finally {
      rmSync(folder, { recursive: true })
    }
    await expect(verifyModel('LlamaForCausalLM')).rejects.toThrow(/needs a config/)
  })
})
