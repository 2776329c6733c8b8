import { type ConfigReader, defineModel, readSlidingWindow, readWindows } from '@aphrodite/layers'
import { LlamaForCausalLM } from './llama.ts'
import { readLlamaConfig } from './llama-config.ts'

/** The windows of Qwen's layers: none unless asked for, and then only from layer max_window_layers on. */
export function readQwenWindows(c: ConfigReader, layers: number): number[] {
  const window = c.boolean('use_sliding_window', false) ? readSlidingWindow(c, 4096) : 0
  const first = c.count('max_window_layers', 28, { least: 0 })
  return readWindows(c, layers, window, (layer) => layer >= first)
}

/** Llama with biases on q, k and v. */
export default defineModel({
  architectures: ['Qwen2ForCausalLM'],
  readConfig: (c) => {
    const llama = readLlamaConfig(c)
    return { ...llama, qkvBias: true, outBias: false, mlpBias: false, windows: readQwenWindows(c, llama.layers) }
  },
  create: (c) => new LlamaForCausalLM(c),
})
