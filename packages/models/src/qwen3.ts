import { defineModel, RMSNorm, type RotaryEmbedding, type Step } from '@aphrodite/layers'
import type { Tensor } from '@aphrodite/tensor'
import { LlamaAttention, LlamaDecoderLayer, LlamaForCausalLM, LlamaMLP } from './llama.ts'
import { type LlamaConfig, readLlamaConfig } from './llama-config.ts'
import { readQwenWindows } from './qwen2.ts'

/** Llama's attention, with q and k normalised per head before they are turned. */
export class Qwen3Attention extends LlamaAttention {
  readonly qNorm: RMSNorm
  readonly kNorm: RMSNorm
  constructor(c: LlamaConfig, layer: number, rotary: RotaryEmbedding) {
    super(c, layer, rotary)
    this.qNorm = new RMSNorm(c.headDim, c.eps, { weightOffset: c.normOffset })
    this.kNorm = new RMSNorm(c.headDim, c.eps, { weightOffset: c.normOffset })
  }
  override forward(x: Tensor, step: Step): Tensor {
    const { q, k, v } = this.qkvProj.heads(x)
    this.qNorm.inPlace(q)
    this.kNorm.inPlace(k)
    this.rotary.apply(q, k, step)
    return this.oProj.forward(this.attn.forward(q, k, v, step))
  }
}

export class Qwen3ForCausalLM extends LlamaForCausalLM {
  constructor(c: LlamaConfig) {
    super(c, (i, rotary) => new LlamaDecoderLayer(c, new Qwen3Attention(c, i, rotary), new LlamaMLP(c)))
  }
}

export default defineModel({
  architectures: ['Qwen3ForCausalLM'],
  readConfig: (c) => {
    const llama = readLlamaConfig(c, { headDim: 128 })
    return { ...llama, mlpBias: false, windows: readQwenWindows(c, llama.layers) }
  },
  create: (c) => new Qwen3ForCausalLM(c),
})
