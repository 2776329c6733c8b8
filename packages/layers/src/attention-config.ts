import type { ConfigReader } from './config.ts'
import type { HeadShape } from './qkv.ts'

const SANE = { most: 65_536 }

/**
 * Heads as config.json has them: as many key heads as heads where it does not say, and a head of hidden_size / heads where
 * head_dim is null, or left out by a family that has no default of its own (`headDim`).
 */
export function readHeads(c: ConfigReader, headDim?: number): HeadShape {
  const heads = c.count('num_attention_heads', undefined, SANE)
  const kvHeads = c.count('num_key_value_heads', heads)
  if (heads % kvHeads) throw c.error(`num_attention_heads ${heads} is not a multiple of num_key_value_heads ${kvHeads}`)
  const hidden = c.count('hidden_size')
  const fallback = c.isNull('head_dim') ? hidden / heads : (headDim ?? hidden / heads)
  if (!c.has('head_dim') && !Number.isInteger(fallback))
    throw c.error(`hidden_size ${hidden} is not a multiple of num_attention_heads ${heads}, and head_dim is missing`)
  return { heads, kvHeads, headDim: c.count('head_dim', fallback, SANE) }
}

/** sliding_window as config.json has it: 0 where it is null, `absent` where it is left out. */
export function readSlidingWindow(c: ConfigReader, absent: number): number {
  return c.isNull('sliding_window') ? 0 : c.count('sliding_window', absent, { least: 0 })
}

/**
 * The window of each layer, 0 where a layer sees everything: by `layer_types` where config.json has it, else by `slides`.
 * `window` is the one of the sliding layers.
 */
export function readWindows(c: ConfigReader, layers: number, window: number, slides: (layer: number) => boolean): number[] {
  const types = c.list('layer_types', 'string')
  if (!types) return Array.from({ length: layers }, (_, i) => (slides(i) ? window : 0))
  if (types.length !== layers) throw c.error(`layer_types names ${types.length} layers, num_hidden_layers is ${layers}`)
  return types.map((type) => {
    if (type === 'full_attention') return 0
    if (type !== 'sliding_attention')
      throw c.error(`layer_types has ${JSON.stringify(type)}; this model supports only "full_attention" and "sliding_attention"`)
    if (window === 0) throw c.error('layer_types has "sliding_attention", but there is no sliding_window')
    return window
  })
}
