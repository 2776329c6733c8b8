import type { Tensor } from '@aphrodite/tensor'
import { describe, expect, test } from 'vitest'
import { Attention } from '../src/attention.ts'
import { checkedForward, checkedLogits, checkNothingKept, watchedDevice } from '../src/contract.ts'
import { ParallelLMHead, VocabParallelEmbedding } from '../src/embedding.ts'
import { ReplicatedLinear } from '../src/linear.ts'
import { CausalLM } from '../src/model.ts'
import { Module } from '../src/module.ts'
import { RMSNorm } from '../src/norm.ts'
import type { Step } from '../src/step.ts'
import { type Bench, bench, checkpoint } from './harness.ts'

const [VOCAB, DIM] = [12, 8]

class Mixer extends Module {
  readonly proj = new ReplicatedLinear(DIM, DIM)
  forward(x: Tensor): Tensor {
    return this.proj.forward(x)
  }
}

/** The smallest model that keeps every promise; each test breaks one. */
class Model extends CausalLM {
  readonly vocabSize: number = VOCAB
  readonly maxModelLen = 64
  readonly embedTokens = new VocabParallelEmbedding(VOCAB, DIM)
  readonly mixer: Module & { forward(x: Tensor): Tensor } = new Mixer()
  readonly norm = new RMSNorm(DIM, 1e-6)
  readonly lmHead: ParallelLMHead = new ParallelLMHead(VOCAB, DIM)
  forward(step: Step): Tensor {
    return this.norm.forward(this.mixer.forward(this.embedTokens.forward(step.inputIds)))
  }
  logits(hidden: Tensor, step: Step): Tensor {
    return this.lmHead.logits(hidden, step)
  }
}

const WEIGHTS = checkpoint({
  'embed_tokens.weight': [VOCAB, DIM],
  'mixer.proj.weight': [DIM, DIM],
  'norm.weight': [DIM],
  'lm_head.weight': [VOCAB, DIM],
})

/** A mixer that computes like this. */
const mixing = (forward: (x: Tensor) => unknown): Module & { forward(x: Tensor): Tensor } =>
  Object.assign(new Mixer(), { forward }) as Mixer

const withMixer = (mixer: Model['mixer']): Model => Object.assign(new Model(), { mixer })

function stepOf(b: Bench): Step {
  const device = watchedDevice(b.device)
  Object.assign(b.workspace, { device }) // ops of what is allocated here are looked at
  return { inputIds: b.ints([1, 2, 3]), logitRows: b.ints([2]), workspace: b.workspace } as Partial<Step> as Step
}

/** Materialises, loads, computes two steps. */
function run(model: CausalLM, weights = WEIGHTS): number[] {
  const b = bench()
  model.materialize(b.env)
  model.loadWeights(weights)
  model.assertLoaded()
  let shape: readonly number[] = []
  for (let i = 0; i < 2; i++) {
    const step = stepOf(b)
    shape = checkedLogits(model, checkedForward(model, step), step).shape
    b.workspace.reset()
    checkNothingKept(model)
  }
  return [...shape]
}

test('a model that keeps its promises runs', () => {
  expect(run(new Model())).toEqual([1, VOCAB])
})

describe('a layer that the tree does not see', () => {
  const odd: readonly [string, unknown, RegExp][] = [
    ['a Map', new Map([['a', new ReplicatedLinear(DIM, DIM)]]), /^mixer \(Mixer\): experts holds a ReplicatedLinear where the tree/],
    ['an array of arrays', [[new RMSNorm(DIM, 1e-6)]], /^mixer \(Mixer\): experts holds a RMSNorm/],
    ['an object', { up: new Mixer() }, /^mixer \(Mixer\): experts holds a Mixer/],
  ]
  test.each(odd)('because it is kept in %s, is named at materialize', (_, experts, message) => {
    const model = withMixer(Object.assign(new Mixer(), { experts }))
    expect(() => model.materialize(bench().env)).toThrow(
      expect.objectContaining({ code: 'UNREGISTERED_LAYER', message: expect.stringMatching(message) }),
    )
  })
  test('unless its module’s own children() yields it', () => {
    class Experts extends Mixer {
      readonly experts = new Map([['a', new ReplicatedLinear(DIM, DIM)]])
      override *children(): Iterable<[string, Module]> {
        yield* super.children()
        for (const [name, expert] of this.experts) yield [`experts.${name}`, expert]
      }
    }
    const model = withMixer(new Experts())
    expect([...model.materialize(bench().env).slots.keys()]).toContain('mixer.experts.a.weight')
  })
  test.each([
    [
      'linear',
      () => new ReplicatedLinear(DIM, 4),
      (l: ReplicatedLinear, x: Tensor) => l.forward(x),
      /^ReplicatedLinear \[8\] → \[4\] was used without/,
    ],
    ['norm', () => new RMSNorm(DIM, 1e-6), (l: RMSNorm, x: Tensor) => l.forward(x), /^RMSNorm was used without/],
    [
      'attention',
      () => new Attention({ heads: 1, kvHeads: 1, headDim: DIM }),
      (l: Attention, x: Tensor) => l.forward(x, x, x, {} as Step),
      /^Attention was used/,
    ],
  ] as const)('because forward creates it, is told by class and sizes: %s', (_, make, use, message) => {
    const model = withMixer(mixing((x) => use(make() as never, x)))
    expect(() => run(model)).toThrow(expect.objectContaining({ code: 'UNREGISTERED_LAYER', message: expect.stringMatching(message) }))
  })
  test('because it is of another copy of the package', () => {
    class ReplicatedLinear {
      materialize(): void {}
      children(): void {}
    }
    const model = withMixer(Object.assign(new Mixer(), { other: new ReplicatedLinear() }))
    expect(() => model.materialize(bench().env)).toThrow(
      /mixer \(Mixer\): other is a ReplicatedLinear of another copy of @aphrodite\/layers/,
    )
  })
})

describe('an asynchronous forward', () => {
  test('is seen at materialize, by the path of its module', () => {
    class Slow extends Mixer {
      // @ts-expect-error: what TypeScript would refuse, JavaScript does not
      override async forward(x: Tensor): Promise<Tensor> {
        return x
      }
    }
    const model = withMixer(new Slow() as never)
    expect(() => model.materialize(bench().env)).toThrow(
      expect.objectContaining({ code: 'ASYNC_FORWARD', message: expect.stringMatching(/^mixer \(Slow\): forward/) }),
    )
  })
  test('is seen when it returns a promise without being declared so', () => {
    class Later extends Model {
      override forward(step: Step): Tensor {
        return Promise.reject(step) as never
      }
    }
    expect(() => run(new Later())).toThrow(
      expect.objectContaining({ code: 'ASYNC_FORWARD', message: expect.stringMatching(/^Later: forward/) }),
    )
  })
})

describe('a tensor kept from one step to the next', () => {
  test('in a property is named by its path', () => {
    class Keeping extends Mixer {
      last: Tensor | undefined
      override forward(x: Tensor): Tensor {
        this.last = super.forward(x)
        return this.last
      }
    }
    expect(() => run(withMixer(new Keeping()))).toThrow(
      expect.objectContaining({
        code: 'STALE_TENSOR',
        message: expect.stringMatching(/^mixer \(Keeping\) keeps in last a tensor f32 \[3,8\]/),
      }),
    )
  })
  test('in a private field is seen when it is used, with the op and the methods that were running', () => {
    class Private extends Mixer {
      #last: Tensor | undefined
      override forward(x: Tensor): Tensor {
        const out = this.proj.forward(this.#last ?? x)
        this.#last ??= x
        return out
      }
    }
    expect(() => run(withMixer(new Private()))).toThrow(
      expect.objectContaining({
        code: 'STALE_TENSOR',
        message: expect.stringMatching(/^linear was given, in .*Private\.forward.*, a tensor f32 \[3,8\]/),
      }),
    )
  })
  test('may not be returned either', () => {
    let kept: Tensor | undefined
    class Returning extends Model {
      override forward(step: Step): Tensor {
        kept ??= super.forward(step)
        return kept
      }
    }
    expect(() => run(new Returning())).toThrow(/^Returning\.forward returned a tensor f32 \[3,8\] whose memory was given back/)
  })
})

describe('what forward and logits return', () => {
  class Odd extends Model {
    readonly result: (x: Tensor) => unknown
    constructor(result: (x: Tensor) => unknown) {
      super()
      this.result = result
    }
    override forward(step: Step): Tensor {
      return this.result(super.forward(step)) as Tensor
    }
  }
  test.each([
    ['fewer rows', (x: Tensor) => x.narrow(0, 0, 2), /^Odd\.forward returned \[2,8\] for 3 tokens; it should be \[3, hidden\]/],
    ['another rank', (x: Tensor) => x.view(1, 3, DIM), /^Odd\.forward returned \[1,3,8\]/],
    ['nothing', () => undefined, /^Odd\.forward returned undefined; it should return the hidden states/],
    ['something else', () => ({ hidden: 1 }), /^Odd\.forward returned a Object/],
  ])('%s', (_, result, message) => {
    expect(() => run(new Odd(result))).toThrow(expect.objectContaining({ code: 'BAD_OUTPUT', message: expect.stringMatching(message) }))
  })
  test('logits as wide as vocabSize says', () => {
    const model = Object.assign(new Model(), { vocabSize: VOCAB - 1 })
    expect(() => run(model)).toThrow(
      expect.objectContaining({
        code: 'BAD_OUTPUT',
        message: 'Model.logits returned f32 [1,12] for 1 rows; it should be f32 [1, 11], as vocabSize says.',
      }),
    )
  })
})

describe('weights', () => {
  const without = (name: string) => WEIGHTS.filter((w) => w.name !== name)
  test('that are missing, not wanted, or given twice, by name', () => {
    expect(() => run(new Model(), without('norm.weight'))).toThrow(/Missing: norm\.weight\./)
    expect(() => run(new Model(), [...WEIGHTS, ...checkpoint({ 'mixer.proj.bias': [DIM] })])).toThrow(/Not expected: mixer\.proj\.bias\./)
    expect(() => run(new Model(), [...WEIGHTS, WEIGHTS[2]!])).toThrow(/norm\.weight was given twice/)
  })
  test('that a loadWeights of the model’s own does not pass on', () => {
    class Forgetful extends Model {
      override loadWeights(): void {}
    }
    expect(() => run(new Forgetful())).toThrow(
      expect.objectContaining({
        code: 'NOT_LOADED',
        message: expect.stringMatching(/^Forgetful: its weights \(embed_tokens\.weight and 3 more\).*super\.loadWeights/),
      }),
    )
    expect(() => new Model().loadWeights([])).toThrow(expect.objectContaining({ code: 'NOT_LOADED' }))
  })
})

describe('materialising twice', () => {
  const twice = (message: RegExp) => expect.objectContaining({ code: 'MATERIALIZED_TWICE', message: expect.stringMatching(message) })
  test('a model', () => {
    const model = new Model()
    model.materialize(bench().env)
    expect(() => model.materialize(bench().env)).toThrow(twice(/^Model is materialised already/))
  })
  test('a layer of two models', () => {
    const mixer = new Mixer()
    withMixer(mixer).materialize(bench().env)
    expect(() => Object.assign(new Model(), { mixer: undefined, other: mixer }).materialize(bench().env)).toThrow(
      twice(/^ReplicatedLinear: it was materialised as mixer\.proj, and now again as other\.proj/),
    )
  })
})
