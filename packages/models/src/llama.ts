import type { Step } from '@aphrodite/layers'
import * as L from '@aphrodite/layers'
import type { Tensor } from '@aphrodite/tensor'
import { type LlamaConfig, readLlamaConfig, readMistralConfig } from './llama-config.ts'

/** Attention, an MLP, a mixture of experts: what a decoder layer mixes with. */
export type Mixer = L.Module & { forward(x: Tensor, step: Step): Tensor }

export class LlamaAttention extends L.Module {
  readonly qkvProj: L.QKVParallelLinear
  readonly oProj: L.RowParallelLinear
  readonly attn: L.Attention
  readonly rotary: L.RotaryEmbedding
  constructor(c: LlamaConfig, layer: number, rotary: L.RotaryEmbedding) {
    super()
    this.qkvProj = new L.QKVParallelLinear(c.hidden, c, { bias: c.qkvBias })
    this.oProj = new L.RowParallelLinear(c.heads * c.headDim, c.hidden, { bias: c.outBias, heads: c })
    this.attn = new L.Attention({ ...c, window: c.windows[layer]! })
    this.rotary = rotary
  }
  forward(x: Tensor, step: Step): Tensor {
    const { q, k, v } = this.qkvProj.heads(x) // [tokens, heads, headDim]: this rank's heads
    this.rotary.apply(q, k, step)
    return this.oProj.forward(this.attn.forward(q, k, v, step))
  }
}

export class LlamaMLP extends L.Module {
  readonly gateUpProj: L.MergedColumnParallelLinear
  readonly downProj: L.RowParallelLinear
  readonly #activation: LlamaConfig['activation']
  constructor(c: LlamaConfig) {
    super()
    const bias = c.mlpBias
    this.gateUpProj = new L.MergedColumnParallelLinear(c.hidden, { gate_proj: c.intermediate, up_proj: c.intermediate }, { bias })
    this.downProj = new L.RowParallelLinear(c.intermediate, c.hidden, { bias })
    this.#activation = c.activation
  }
  forward(x: Tensor): Tensor {
    return this.downProj.forward(L.activateAndMul(this.gateUpProj.forward(x), this.#activation))
  }
}

export class LlamaDecoderLayer extends L.Module {
  readonly inputLayernorm: L.RMSNorm
  readonly selfAttn: Mixer
  readonly postAttentionLayernorm: L.RMSNorm
  readonly mlp: Mixer
  constructor(c: LlamaConfig, selfAttn: Mixer, mlp: Mixer) {
    super()
    this.inputLayernorm = new L.RMSNorm(c.hidden, c.eps, { weightOffset: c.normOffset })
    this.selfAttn = selfAttn
    this.postAttentionLayernorm = new L.RMSNorm(c.hidden, c.eps, { weightOffset: c.normOffset })
    this.mlp = mlp
  }
  /** x and residual [tokens, hidden]; the residual, in f32, is updated in place. */
  forward(x: Tensor, residual: Tensor, step: Step): Tensor {
    x = this.inputLayernorm.addTo(residual, x)
    x = this.selfAttn.forward(x, step)
    x = this.postAttentionLayernorm.addTo(residual, x)
    return this.mlp.forward(x, step)
  }
}

/** What a model is a pile of; it returns what is to be added to the residual. */
export type DecoderLayer = L.Module & { forward(x: Tensor, residual: Tensor, step: Step): Tensor }
export type Block = (layer: number, rotary: L.RotaryEmbedding) => DecoderLayer

export class LlamaModel extends L.Module {
  readonly embedTokens: L.VocabParallelEmbedding
  readonly layers: readonly DecoderLayer[]
  readonly norm: L.RMSNorm
  constructor(c: LlamaConfig, block: Block) {
    super()
    const rotary = new L.RotaryEmbedding(c.rotary)
    this.embedTokens = new L.VocabParallelEmbedding(c.vocab, c.hidden, { scale: c.embedScale })
    this.layers = Array.from({ length: c.layers }, (_, i) => block(i, rotary))
    this.norm = new L.RMSNorm(c.hidden, c.eps, { weightOffset: c.normOffset })
  }
  forward(step: Step): Tensor {
    const residual = this.embedTokens.forward(step.inputIds, 'f32') // not rounded from layer to layer
    let x = residual.zeros(residual.shape, this.embedTokens.dtype)
    for (const layer of this.layers) x = step.workspace.tidy(x, (x) => layer.forward(x, residual, step))
    return this.norm.addTo(residual, x)
  }
}

export class LlamaForCausalLM extends L.CausalLM {
  readonly model: LlamaModel
  readonly lmHead: L.ParallelLMHead
  readonly vocabSize: number
  readonly maxModelLen: number
  constructor(c: LlamaConfig, block: Block = (i, rotary) => new LlamaDecoderLayer(c, new LlamaAttention(c, i, rotary), new LlamaMLP(c))) {
    super()
    this.model = new LlamaModel(c, block)
    this.lmHead = new L.ParallelLMHead(c.vocab, c.hidden, { tiedTo: c.tied ? this.model.embedTokens : undefined })
    this.vocabSize = c.vocab
    this.maxModelLen = c.rotary.maxPositions
  }
  forward(step: Step): Tensor {
    return this.model.forward(step)
  }
  logits(hidden: Tensor, step: Step): Tensor {
    return this.lmHead.logits(hidden, step)
  }
}

const create = (c: LlamaConfig) => new LlamaForCausalLM(c)
export default [
  L.defineModel({ architectures: ['LlamaForCausalLM'], readConfig: (c) => readLlamaConfig(c), create }),
  L.defineModel({ architectures: ['MistralForCausalLM', 'MinistralForCausalLM'], readConfig: readMistralConfig, create }),
]
