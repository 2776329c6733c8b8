import { type ConfigJson, ConfigReader } from './config.ts'
import type { CausalLM } from './model.ts'
import type { Quantization } from './quantization/method.ts'
import { renamed } from './weights.ts'

/** What a model package exports: which architectures of config.json it serves, how it is made of one, and what its checkpoints need. */
export interface ModelDefinition<C = unknown> {
  readonly architectures: readonly string[]
  readConfig(reader: ConfigReader): C
  create(config: C): CausalLM
  /**
   * For a config.json that keeps things elsewhere than others do (inside `text_config`, under older names): what it would be in the
   * usual writing. Everything reads that: this definition, and the engine its dtype, end tokens and quantisation.
   */
  adaptConfig?(json: ConfigJson): ConfigJson
  /** The model's name for a tensor of the checkpoint; undefined leaves the tensor out. Where shapes differ too, override `loadWeights`. */
  weightName?(name: string): string | undefined
  /** Quantisation methods, by the `quant_method` of config.json's `quantization_config`, which they are given. */
  readonly quantizations?: Readonly<Record<string, (config: ConfigReader) => Quantization>>
  /** A Jinja template for checkpoints that come without one. */
  readonly chatTemplate?: string
}
export const defineModel = <C>(definition: ModelDefinition<C>): ModelDefinition<C> => definition

/** A model of a config.json, declared: without memory and weights. `where` is for messages. Throws BAD_CONFIG. */
export function createModel<C>(definition: ModelDefinition<C>, json: ConfigJson, where = 'config.json'): CausalLM {
  const adapted = definition.adaptConfig?.(json) ?? json
  const model = definition.create(definition.readConfig(new ConfigReader(adapted, where)))
  if (definition.weightName) {
    const load = model.loadWeights.bind(model)
    model.loadWeights = (weights) => load(renamed(weights, (name) => definition.weightName!(name)))
  }
  return model
}
