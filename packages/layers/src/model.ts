import type { NamedArray, Tensor } from '@aphrodite/tensor'
import { checkTree } from './contract.ts'
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

  /**
   * Names the tree, lets every layer allocate its part, and remembers what a checkpoint has to bring. Called once. Throws
   * CANNOT_SHARD, UNREGISTERED_LAYER, ASYNC_FORWARD, MATERIALIZED_TWICE.
   */
  materialize(env: Env): WeightMap {
    if (this.#weights)
      throw layersError(
        'MATERIALIZED_TWICE',
        `${this.constructor.name} is materialised already. Create another one for another device or rank.`,
      )
    checkTree(this)
    const weights = new WeightMap()
    for (const [path, m] of walk(this)) if (m instanceof Layer) m.materialize(path, env, weights)
    this.#weights = weights
    return weights
  }

  /** Fills the model, strictly by name. Override it for checkpoints that name or shape things differently: map, then call this. */
  loadWeights(weights: Iterable<NamedArray>): void {
    if (!this.#weights) throw layersError('NOT_LOADED', `${this.constructor.name}: loadWeights was called before materialize`)
    this.#weights.fill(weights)
  }

  /** Throws NOT_LOADED when the model was materialised and its weights are not there: whatever it computes would be of zeros. */
  assertLoaded(): void {
    if (!this.#weights || this.#weights.isFilled) return
    const [name] = this.#weights.slots.keys()
    if (name === undefined) return
    throw layersError(
      'NOT_LOADED',
      `${this.constructor.name}: its weights (${name} and ${this.#weights.slots.size - 1} more) were not loaded before it is used. ` +
        'Call loadWeights first; an override of it ends with super.loadWeights(…).',
    )
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
