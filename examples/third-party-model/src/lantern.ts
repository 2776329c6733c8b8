import {
  Attention,
  activateAndMul,
  CausalLM,
  ColumnParallelLinear,
  type ConfigReader,
  defineModel,
  MergedColumnParallelLinear,
  Module,
  ParallelLMHead,
  QKVParallelLinear,
  RMSNorm,
  RotaryEmbedding,
  RowParallelLinear,
  readHeads,
  readRotary,
  type Step,
  VocabParallelEmbedding,
} from '@aphrodite/layers'
import type { NamedArray, Tensor } from '@aphrodite/tensor'

export type LanternConfig = ReturnType<typeof readConfig>
function readConfig(c: ConfigReader) {
  c.require('glow', 'silu')
  const shape = readHeads(c)
  return {
    ...shape,
    hidden: c.count('hidden_size'),
    rays: c.count('num_rays', undefined, { most: 10_000 }),
    flame: c.count('flame_size'),
    vocab: c.count('vocab_size'),
    eps: c.number('eps', 1e-6),
    rotary: readRotary(c, shape),
  }
}

/** Attention whose values pass through a gate, dimension by dimension; only every other ray turns its queries and keys. */
export class Gaze extends Module {
  readonly askKnowTell: QKVParallelLinear // ask, know and tell in the checkpoint
  readonly glow: ColumnParallelLinear
  readonly attn: Attention
  readonly lead: RowParallelLinear
  readonly rotary?: RotaryEmbedding
  constructor(c: LanternConfig, rotary: RotaryEmbedding | undefined) {
    super()
    const inner = c.heads * c.headDim
    this.askKnowTell = new QKVParallelLinear(c.hidden, c, { names: ['ask', 'know', 'tell'] })
    this.glow = new ColumnParallelLinear(c.hidden, inner, { heads: c }) // shared among ranks as the queries are
    this.attn = new Attention(c)
    this.lead = new RowParallelLinear(inner, c.hidden, { heads: c })
    if (rotary) this.rotary = rotary
  }
  /** x [tokens, hidden] → [tokens, hidden] */
  forward(x: Tensor, step: Step): Tensor {
    const { q, k, v } = this.askKnowTell.heads(x) // [tokens, this rank's heads, headDim]
    this.rotary?.apply(q, k, step)
    const gate = this.glow.forward(x) // [tokens, this rank's heads · headDim]
    const seen = this.attn.forward(q, k, v, step) // the same
    const both = x.empty([x.dim(0), 2 * gate.lastDim])
    x.kernels.copy(both.narrow(1, 0, gate.lastDim), gate)
    x.kernels.copy(both.narrow(1, gate.lastDim, gate.lastDim), seen)
    return this.lead.forward(activateAndMul(both, 'silu'))
  }
}

/** flame(relu(wick x)² · oil x) */
export class Burner extends Module {
  readonly wickOil: MergedColumnParallelLinear // wick and oil in the checkpoint
  readonly flame: RowParallelLinear
  constructor(c: LanternConfig) {
    super()
    this.wickOil = new MergedColumnParallelLinear(c.hidden, { wick: c.flame, oil: c.flame })
    this.flame = new RowParallelLinear(c.flame, c.hidden)
  }
  forward(x: Tensor): Tensor {
    return this.flame.forward(activateAndMul(this.wickOil.forward(x), 'relu2'))
  }
}

export class Ray extends Module {
  readonly veil: RMSNorm
  readonly gaze: Gaze
  readonly mantle: RMSNorm
  readonly burner: Burner
  constructor(c: LanternConfig, rotary: RotaryEmbedding | undefined) {
    super()
    this.veil = new RMSNorm(c.hidden, c.eps)
    this.gaze = new Gaze(c, rotary)
    this.mantle = new RMSNorm(c.hidden, c.eps)
    this.burner = new Burner(c)
  }
  /** Adds x to the residual, and returns what the next one adds. */
  forward(x: Tensor, residual: Tensor, step: Step): Tensor {
    x = this.gaze.forward(this.veil.addTo(residual, x), step)
    return this.burner.forward(this.mantle.addTo(residual, x))
  }
}

export class Lantern extends Module {
  readonly words: VocabParallelEmbedding
  readonly rays: readonly Ray[]
  readonly lens: RMSNorm
  constructor(c: LanternConfig) {
    super()
    const rotary = new RotaryEmbedding(c.rotary) // one for all: its table is the same
    this.words = new VocabParallelEmbedding(c.vocab, c.hidden)
    this.rays = Array.from({ length: c.rays }, (_, i) => new Ray(c, i % 2 === 1 ? rotary : undefined))
    this.lens = new RMSNorm(c.hidden, c.eps)
  }
  forward(step: Step): Tensor {
    const residual = this.words.forward(step.inputIds, 'f32') // [tokens, hidden], not rounded from ray to ray
    let x = residual.zeros(residual.shape, this.words.dtype)
    for (const ray of this.rays) x = step.workspace.tidy(x, (x) => ray.forward(x, residual, step))
    return this.lens.addTo(residual, x)
  }
}

export class LanternForCausalLM extends CausalLM {
  readonly lantern: Lantern
  readonly beam: ParallelLMHead
  readonly vocabSize: number
  readonly maxModelLen: number
  constructor(c: LanternConfig) {
    super()
    this.lantern = new Lantern(c)
    this.beam = new ParallelLMHead(c.vocab, c.hidden)
    this.vocabSize = c.vocab
    this.maxModelLen = c.rotary.maxPositions
  }
  forward(step: Step): Tensor {
    return this.lantern.forward(step)
  }
  logits(hidden: Tensor, step: Step): Tensor {
    return this.beam.logits(hidden, step)
  }
  override loadWeights(weights: Iterable<NamedArray>): void {
    super.loadWeights(asMatrices(weights))
  }
}

/** Checkpoints hold glow as [heads, headDim, hidden] and flame as [inputs, outputs]. Nothing is copied: only shapes and strides change. */
function* asMatrices(weights: Iterable<NamedArray>): Generator<NamedArray> {
  for (const { name, array } of weights) {
    const { shape, strides } = array
    if (name.endsWith('.glow.weight') && shape.length === 3)
      yield { name, array: { ...array, shape: [shape[0]! * shape[1]!, shape[2]!], strides: strides.slice(1) } }
    else if (name.endsWith('.flame.weight')) yield { name, array: { ...array, shape: shape.toReversed(), strides: strides.toReversed() } }
    else yield { name, array }
  }
}

export default defineModel({
  architectures: ['LanternForCausalLM'],
  readConfig,
  create: (c) => new LanternForCausalLM(c),
  chatTemplate: '{% for message in messages %}{{ message.content }}{% endfor %}', // its checkpoints come without one
})
