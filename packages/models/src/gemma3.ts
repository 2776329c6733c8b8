import {
  type ConfigReader,
  defineModel,
  RotaryEmbedding,
  readActivation,
  readRotary,
  readSlidingWindow,
  readWindows,
  rotaryParameters,
} from '@aphrodite/layers'
import { readGemmaConfig } from './gemma.ts'
import { Gemma2DecoderLayer, Gemma2ForCausalLM, readSoftCap } from './gemma2.ts'
import { LlamaMLP } from './llama.ts'
import { Qwen3Attention } from './qwen3.ts'

type Gemma3Config = ReturnType<typeof readGemma3Config>
function readGemma3Config(c: ConfigReader) {
  if (c.has('attn_logit_softcapping')) throw c.error('attn_logit_softcapping is given; Gemma 3 does not cap its scores')
  const { headDim, ...gemma } = readGemmaConfig(c, { layerType: 'full_attention', theta: 1_000_000 })
  const maxPositions = c.count('max_position_embeddings') // is the stretched length already
  const everyFull = c.count('sliding_window_pattern', c.count('_sliding_window_pattern', 6))
  return {
    ...gemma,
    headDim,
    activation: readActivation(c, 'hidden_activation', 'gelu_pytorch_tanh'),
    scale: c.number('query_pre_attn_scalar', 256) ** -0.5,
    finalSoftCap: readSoftCap(c, 'final_logit_softcapping', 0),
    windows: readWindows(c, gemma.layers, readSlidingWindow(c, 4096), (layer) => (layer + 1) % everyFull !== 0),
    rotary: { ...gemma.rotary, maxPositions },
    localRotary: c.object('rope_parameters')?.has('sliding_attention')
      ? { ...readRotary(c, { headDim, layerType: 'sliding_attention' }), maxPositions }
      : rotaryParameters(headDim, c.number('rope_local_base_freq', 10_000), maxPositions),
  }
}

/** Gemma 2 with q and k normalised per head, and another rotation in the layers that look back on a window. */
export class Gemma3ForCausalLM extends Gemma2ForCausalLM {
  constructor(c: Gemma3Config) {
    const local = new RotaryEmbedding(c.localRotary)
    super(c, (i, rotary) => new Gemma2DecoderLayer(c, new Qwen3Attention(c, i, c.windows[i] ? local : rotary), new LlamaMLP(c)))
  }
}

export default defineModel({
  architectures: ['Gemma3ForCausalLM'],
  readConfig: readGemma3Config,
  create: (c) => new Gemma3ForCausalLM(c),
})
