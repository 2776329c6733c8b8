import {
  defineModel,
  MergedColumnParallelLinear,
  QKVParallelLinear,
  type RotaryEmbedding,
  readSlidingWindow,
  readWindows,
} from '@aphrodite/layers'
import { LlamaAttention, LlamaDecoderLayer, LlamaForCausalLM, LlamaMLP } from './llama.ts'
import { type LlamaConfig, readLlamaConfig } from './llama-config.ts'

/** Llama's attention, whose checkpoints hold q, k and v as one matrix. */
class Phi3Attention extends LlamaAttention {
  override readonly qkvProj: QKVParallelLinear
  constructor(c: LlamaConfig, layer: number, rotary: RotaryEmbedding) {
    super(c, layer, rotary)
    this.qkvProj = new QKVParallelLinear(c.hidden, c, { fused: true })
  }
}

/** Llama's MLP, whose checkpoints hold gate and up as one matrix. */
class Phi3MLP extends LlamaMLP {
  override readonly gateUpProj: MergedColumnParallelLinear
  constructor(c: LlamaConfig) {
    super(c)
    this.gateUpProj = new MergedColumnParallelLinear(c.hidden, [c.intermediate, c.intermediate])
  }
}

export class Phi3ForCausalLM extends LlamaForCausalLM {
  constructor(c: LlamaConfig) {
    super(c, (i, rotary) => new LlamaDecoderLayer(c, new Phi3Attention(c, i, rotary), new Phi3MLP(c)))
  }
}

export default defineModel({
  architectures: ['Phi3ForCausalLM'],
  readConfig: (c) => {
    for (const bias of ['attention_bias', 'mlp_bias', 'lm_head_bias']) c.require(bias, false)
    const llama = readLlamaConfig(c)
    const windows = readWindows(c, llama.layers, readSlidingWindow(c, 0), () => true)
    return { ...llama, eps: c.number('rms_norm_eps', 1e-5), windows }
  },
  create: (c) => new Phi3ForCausalLM(c),
})
