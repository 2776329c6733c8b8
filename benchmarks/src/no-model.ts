import { type CacheSpec, type CachingLayer, CausalLM, Layer, type Step } from '@aphrodite/layers'
import type { Tensor } from '@aphrodite/tensor'

class Pages extends Layer implements CachingLayer {
  cacheIndex = -1
  materialize(): void {}
  cacheSpec(): CacheSpec {
    return { kind: 'paged', kvHeads: 1, keyDim: 1, valueDim: 1, window: 0 }
  }
}

/** A model without arithmetic, for measuring what the engine costs around one. */
export class NoModel extends CausalLM {
  readonly vocabSize: number
  readonly maxModelLen = 131072
  readonly layer = new Pages()
  constructor(vocabSize: number) {
    super()
    this.vocabSize = vocabSize
  }
  forward(step: Step): Tensor {
    return step.workspace.empty([step.inputIds.size, 1], 'f32')
  }
  logits(hidden: Tensor, step: Step): Tensor {
    return hidden.empty([step.logitRows.size, this.vocabSize])
  }
}
