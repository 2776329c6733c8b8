import type { RotaryOptions, Tensor } from '@aphrodite/tensor'
import { layersError } from './errors.ts'
import type { SequenceClassed } from './model.ts'
import { type Env, Layer } from './module.ts'
import type { RotaryParameters } from './rotary-scaling.ts'
import type { Step } from './step.ts'

export interface RotaryEmbeddingOptions {
  /** Turns neighbouring dimensions (GPT-J) instead of the two halves (NeoX, Llama). Default false. */
  readonly interleaved?: boolean
}

/** Turns queries and keys by angles that grow with the position. Layers may share one. */
export class RotaryEmbedding extends Layer implements SequenceClassed {
  readonly #parameters: RotaryParameters
  readonly #interleaved: boolean
  #cosSin: Tensor | undefined

  constructor(parameters: RotaryParameters, options: RotaryEmbeddingOptions = {}) {
    super()
    this.#parameters = parameters
    this.#interleaved = options.interleaved ?? false
  }

  materialize(_path: string, env: Env): void {
    const { rotaryDim, frequencies, attentionFactor, long } = this.#parameters
    const positions = Math.min(this.#parameters.maxPositions, env.maxModelLen ?? Number.POSITIVE_INFINITY)
    this.#cosSin = env.arena.empty([long ? 2 * positions : positions, rotaryDim], 'f32')
    const write = (start: number, by: Float32Array): void =>
      env.device.upload(this.#cosSin!.narrow(0, start, positions), tableOf(positions, by, attentionFactor))
    write(0, frequencies)
    if (long) write(positions, long.frequencies)
  }

  /** Turns q [tokens, heads, headDim] and k [tokens, kvHeads, headDim] in place. */
  apply(q: Tensor, k: Tensor, step: Step): void {
    if (!this.#cosSin) throw layersError('BAD_LAYER', 'a rotary embedding was used before the model was materialised')
    q.kernels.rotary(q, k, step.positions, this.#cosSin, this.#options(step))
  }

  /** 1 for prompts that turn by the long frequencies. */
  sequenceClass(promptLength: number): 0 | 1 {
    const { long } = this.#parameters
    return long && promptLength > long.above ? 1 : 0
  }

  #options(step: Step): RotaryOptions {
    const { long } = this.#parameters
    return long ? { interleaved: this.#interleaved, selector: step.promptLengths, bound: long.above } : { interleaved: this.#interleaved }
  }
}

/** Rows of cosines then sines, rounded to float32 where the reference rounds: the angle, its cosine, the product. */
function tableOf(positions: number, frequencies: Float32Array, factor: number): Float32Array {
  const half = frequencies.length
  const table = new Float32Array(positions * half * 2)
  for (let p = 0, row = 0; p < positions; p++, row += 2 * half)
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(p * frequencies[i]!)
      table[row + i] = Math.fround(Math.cos(angle)) * factor
      table[row + half + i] = Math.fround(Math.sin(angle)) * factor
    }
  return table
}
