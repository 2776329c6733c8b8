import type { NamedArray, Tensor } from '@aphrodite/tensor'
import type { ConfigReader } from './config.ts'
import { layersError } from './errors.ts'
import { type Env, Layer, Module, walk } from './module.ts'
import type { Step } from './step.ts'
import { WeightMap } from './weights.ts'

/** A language model. `forward` is synchronous and only enqueues. */
export abstract class CausalLM extends Module {
  /** Rows of logits have this many columns. */
  abstract readonly vocabSize: number
  /** The most tokens that a sequence may have: max_position_embeddings, scaling included. */
  abstract readonly maxModelLen: number
  #weights: WeightMap | undefined

  /** Hidden states [tokens, hidden] of a flat batch. */
  abstract forward(step: Step): Tensor
  /** f32 [logitRows, vocabSize]. */
  abstract logits(hidden: Tensor, step: Step): Tensor

  /** Names the tree, lets every layer allocate its part, and remembers what a checkpoint has to bring. Called once. */
  materialize(env: Env): WeightMap {
    const weights = new WeightMap()
    for (const [path, m] of walk(this)) if (m instanceof Layer) m.materialize(path, env, weights)
    this.#weights = weights
    return weights
  }

  /** Fills the model, strictly by name. Override it for checkpoints that name or shape things differently: map, then call this. */
  loadWeights(weights: Iterable<NamedArray>): void {
    if (!this.#weights) throw layersError('BAD_LAYER', 'loadWeights was called before materialize')
    this.#weights.fill(weights)
  }

  /**
   * Sequences whose prompts differ in this compute different keys and values for the same tokens, so they share no cache.
   * Layers that choose by the length of the prompt (LongRoPE) say so; everything else is 0.
   */
  sequenceClass(promptLength: number): number {
    let key = 0
    for (const [, m] of walk(this))
      if ('sequenceClass' in m && m !== this) key = key * 2 + (m as unknown as SequenceClassed).sequenceClass(promptLength)
    return key
  }
}

export interface SequenceClassed {
  sequenceClass(promptLength: number): 0 | 1
}

/** What a model package exports: which architectures of config.json it serves, and how it is made of one. */
export interface ModelDefinition<C = unknown> {
  readonly architectures: readonly string[]
  readConfig(reader: ConfigReader): C
  create(config: C): CausalLM
}
export const defineModel = <C>(definition: ModelDefinition<C>): ModelDefinition<C> => definition
