import { type ConfigReader, defineModel, RMSNorm, readActivation, readSlidingWindow, readWindows, type Step } from '@aphrodite/layers'
import type { Tensor } from '@aphrodite/tensor'
import { readGemmaConfig } from './gemma.ts'
import { type Block, LlamaAttention, LlamaDecoderLayer, LlamaForCausalLM, LlamaMLP, type Mixer } from './llama.ts'
import type { LlamaConfig } from './llama-config.ts'

export type Gemma2Config = ReturnType<typeof readGemma2Config>
export function readGemma2Config(c: ConfigReader) {
  const gemma = readGemmaConfig(c)
  return {
    ...gemma,
    activation: readActivation(c, 'hidden_activation', 'gelu_pytorch_tanh'),
    scale: c.number('query_pre_attn_scalar', 256) ** -0.5,
    softCap: readSoftCap(c, 'attn_logit_softcapping', 50),
    finalSoftCap: readSoftCap(c, 'final_logit_softcapping', 30),
    windows: readWindows(c, gemma.layers, readSlidingWindow(c, 4096), (layer) => layer % 2 === 0),
  }
}

/** A cap, 0 where it is null: none. */
export const readSoftCap = (c: ConfigReader, key: string, absent: number): number => (c.isNull(key) ? 0 : c.number(key, absent))

/** Norms before and after both attention and MLP. */
export class Gemma2DecoderLayer extends LlamaDecoderLayer {
  readonly preFeedforwardLayernorm: RMSNorm
  readonly postFeedforwardLayernorm: RMSNorm
  constructor(c: LlamaConfig, selfAttn: Mixer, mlp: Mixer) {
    super(c, selfAttn, mlp)
    this.preFeedforwardLayernorm = new RMSNorm(c.hidden, c.eps, { weightOffset: c.normOffset })
    this.postFeedforwardLayernorm = new RMSNorm(c.hidden, c.eps, { weightOffset: c.normOffset })
  }
  override forward(x: Tensor, residual: Tensor, step: Step): Tensor {
    x = this.inputLayernorm.addTo(residual, x)
    x = this.postAttentionLayernorm.inPlace(this.selfAttn.forward(x, step))
    x = this.preFeedforwardLayernorm.addTo(residual, x)
    return this.postFeedforwardLayernorm.inPlace(this.mlp.forward(x, step))
  }
}

export class Gemma2ForCausalLM extends LlamaForCausalLM {
  readonly #finalSoftCap: number
  constructor(c: Gemma2Config, block: Block = (i, rotary) => new Gemma2DecoderLayer(c, new LlamaAttention(c, i, rotary), new LlamaMLP(c))) {
    super(c, block)
    this.#finalSoftCap = c.finalSoftCap
  }
  override logits(hidden: Tensor, step: Step): Tensor {
    const logits = super.logits(hidden, step)
    if (this.#finalSoftCap) logits.kernels.softCap(logits, logits, this.#finalSoftCap)
    return logits
  }
}

export default defineModel({
  architectures: ['Gemma2ForCausalLM'],
  readConfig: readGemma2Config,
  create: (c) => new Gemma2ForCausalLM(c),
})
