import {
  type ConfigReader,
  type ReadRotaryOptions,
  readActivation,
  readHeads,
  readRotary,
  readSlidingWindow,
  readWindows,
} from '@aphrodite/layers'

export type LlamaConfig = ReturnType<typeof readLlamaConfig>
/** What the Llama family reads of config.json. Relatives start from it and change what is theirs. */
export function readLlamaConfig(c: ConfigReader, own: Partial<ReadRotaryOptions> = {}) {
  const shape = readHeads(c, own.headDim)
  const layers = c.count('num_hidden_layers', undefined, { most: 10_000 })
  const bias = c.boolean('attention_bias', false)
  return {
    ...shape,
    layers,
    hidden: c.count('hidden_size'),
    intermediate: c.count('intermediate_size'),
    vocab: c.count('vocab_size'),
    eps: c.number('rms_norm_eps', 1e-6),
    activation: readActivation(c, 'hidden_act', 'silu'),
    rotary: readRotary(c, { ...own, ...shape }),
    tied: c.boolean('tie_word_embeddings', false),
    qkvBias: bias,
    outBias: bias,
    mlpBias: c.boolean('mlp_bias', false),
    windows: new Array<number>(layers).fill(0), // tokens that a layer looks back on, 0: all
    scale: shape.headDim ** -0.5, // of scores
    softCap: 0, // of scores, 0: none
    embedScale: 1,
    normOffset: 0, // added to the weights of norms
  }
}

/** Llama whose layers all look back on a window, unless layer_types says otherwise. */
export function readMistralConfig(c: ConfigReader): LlamaConfig {
  const llama = readLlamaConfig(c)
  return { ...llama, windows: readWindows(c, llama.layers, readSlidingWindow(c, 4096), () => true) }
}
