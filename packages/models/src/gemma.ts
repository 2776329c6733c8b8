import { type ConfigReader, defineModel, type ReadRotaryOptions, readActivation } from '@aphrodite/layers'
import { LlamaForCausalLM } from './llama.ts'
import { readLlamaConfig } from './llama-config.ts'

/** What all Gemmas have in common: tied embeddings times √hidden, norms around one, heads of 256. */
export function readGemmaConfig(c: ConfigReader, own: Partial<ReadRotaryOptions> = {}) {
  c.require('use_bidirectional_attention', false)
  const llama = readLlamaConfig(c, { headDim: 256, ...own })
  return { ...llama, tied: c.boolean('tie_word_embeddings', true), mlpBias: false, embedScale: llama.hidden ** 0.5, normOffset: 1 }
}

/** Early files say "gelu" in hidden_act and were trained with its tanh approximation; only hidden_activation is believed. */
const readGemmaActivation = (c: ConfigReader) => {
  c.require('hidden_act', 'gelu', 'gelu_pytorch_tanh')
  return readActivation(c, 'hidden_activation', 'gelu_pytorch_tanh')
}

export default defineModel({
  architectures: ['GemmaForCausalLM'],
  readConfig: (c) => ({ ...readGemmaConfig(c), activation: readGemmaActivation(c) }),
  create: (c) => new LlamaForCausalLM(c),
})
