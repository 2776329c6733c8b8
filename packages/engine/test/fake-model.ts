import { type CacheSpec, type CachingLayer, CausalLM, Layer, type Step } from '@aphrodite/layers'
import { PAGE_TOKENS, type Tensor } from '@aphrodite/tensor'
import { type FakeDevice, type FakeKernels, mix } from './fake-device.ts'

export const VOCAB = 64
/** Prompts longer than this are of another class: they compute other values for the same tokens. */
export const CLASS_LENGTH = 70
export type LayerKind = { readonly window: number } | 'state'

const embed = (token: number, position: number, promptLength: number): number =>
  mix(mix(token, position), promptLength > CLASS_LENGTH ? 1 : 0)
const logitOf = (hidden: number, token: number): number => ((mix(hidden, token) >>> 8) / 2 ** 24) * 8 - 2

/** Remembers one number a token, and hashes all that it can see through its pages. */
class FakeAttention extends Layer implements CachingLayer {
  cacheIndex = -1
  readonly window: number
  constructor(window: number) {
    super()
    this.window = window
  }
  materialize(): void {}
  cacheSpec(): CacheSpec {
    return { kind: 'paged', kvHeads: 1, keyDim: 1, valueDim: 1, window: this.window }
  }

  apply(x: Int32Array, step: Step, device: FakeDevice): Int32Array {
    const cache = step.kvCaches[this.cacheIndex]!
    if (cache.kind !== 'paged') throw new Error('not my cache')
    const meta = step.attnMetadata[cache.group]!
    if (meta.kind !== 'paged') throw new Error('not my metadata')
    const memory = device.words(cache.pages.address, cache.pages.pages * PAGE_TOKENS)
    const slots = device.i32(meta.slots)
    for (let t = 0; t < x.length; t++) {
      // Slot 0 is for the rows that pad a step. What they leave there is nobody's.
      if (slots[t]! < PAGE_TOKENS && slots[t] !== 0) throw new Error('a token would be written to page 0')
      memory[slots[t]!] = x[t]!
    }
    const [starts, contexts, tables] = [device.i32(meta.queryStarts), device.i32(meta.contextLengths), device.i32(meta.pageTables)]
    const columns = meta.pageTables.dim(1)
    const out = new Int32Array(x.length)
    for (let s = 0; s < contexts.length; s++) {
      const queries = starts[s + 1]! - starts[s]!
      if (queries > meta.maxQueryLength || contexts[s]! > meta.maxContextLength) throw new Error('a maximum is too small')
      for (let q = 0; q < queries; q++) {
        const position = contexts[s]! - queries + q
        let hash = 0
        for (let p = this.window ? Math.max(0, position - this.window + 1) : 0; p <= position; p++) {
          const page = tables[s * columns + Math.floor(p / PAGE_TOKENS)]!
          if (page < 0 || (page === 0 && slots[starts[s]! + q] !== 0)) throw new Error(`position ${p} of sequence ${s} has no page`)
          hash = mix(hash, memory[page * PAGE_TOKENS + (p % PAGE_TOKENS)]!)
        }
        out[starts[s]! + q] = mix(hash, x[starts[s]! + q]!)
      }
    }
    return out
  }
}

/** A running hash in a slot. */
class FakeRecurrence extends Layer implements CachingLayer {
  cacheIndex = -1
  materialize(): void {}
  cacheSpec(): CacheSpec {
    return { kind: 'state', tensors: { sum: { shape: [1], dtype: 'f32' } } }
  }

  apply(x: Int32Array, step: Step, device: FakeDevice): Int32Array {
    const cache = step.kvCaches[this.cacheIndex]!
    if (cache.kind !== 'state') throw new Error('not my cache')
    const meta = step.attnMetadata[cache.group]!
    if (meta.kind !== 'state') throw new Error('not my metadata')
    const sums = device.words(cache.tensors['sum']!.address, cache.tensors['sum']!.dim(0))
    const [starts, slots, fresh] = [device.i32(meta.queryStarts), device.i32(meta.slots), device.i32(meta.fresh)]
    const out = new Int32Array(x.length)
    for (let s = 0; s < slots.length; s++) {
      if (slots[s]! < 0 || (slots[s] === 0 && !fresh[s])) throw new Error('a sequence has no slot')
      let sum = fresh[s] ? 0 : sums[slots[s]!]!
      for (let t = starts[s]!; t < starts[s + 1]!; t++) {
        sum = mix(sum, x[t]!)
        out[t] = mix(sum, x[t]!)
      }
      sums[slots[s]!] = sum
    }
    return out
  }
}

/** On a device that only measures nothing comes of it. */
const run = (out: Tensor, op: () => void): void => (out.kernels as FakeKernels).run(op)

/** Its next token is a hash of everything that its layers see: any wrong slot, page, window or prefix is a wrong token. */
export class FakeModel extends CausalLM {
  readonly vocabSize = VOCAB
  readonly maxModelLen: number
  readonly layers: (FakeAttention | FakeRecurrence)[]
  readonly #device: FakeDevice
  /** Runs before each forward that computes: a test may throw here. */
  onForward: (step: Step) => void = () => {}

  constructor(device: FakeDevice, kinds: readonly LayerKind[], maxModelLen = 512) {
    super()
    this.#device = device
    this.maxModelLen = maxModelLen
    this.layers = kinds.map((kind) => (kind === 'state' ? new FakeRecurrence() : new FakeAttention(kind.window)))
  }

  override sequenceClass(promptLength: number): number {
    return promptLength > CLASS_LENGTH ? 1 : 0
  }

  forward(step: Step): Tensor {
    const tokens = step.inputIds.size
    const hidden = step.workspace.empty([tokens, 1], 'i32')
    run(hidden, () => this.#compute(hidden, step))
    return hidden
  }

  #compute(hidden: Tensor, step: Step): void {
    this.onForward(step)
    const device = this.#device
    const [ids, positions, lengths] = [device.i32(step.inputIds), device.i32(step.positions), device.i32(step.promptLengths)]
    let x = Int32Array.from(ids, (id, t) => embed(id, positions[t]!, lengths[t]!))
    for (const layer of this.layers) x = layer.apply(x, step, device) as typeof x
    device.i32(hidden).set(x)
  }

  logits(hidden: Tensor, step: Step): Tensor {
    const rows = step.logitRows.size
    const logits = step.workspace.empty([rows, VOCAB], 'f32')
    run(logits, () => {
      const [h, from, to] = [this.#device.i32(hidden), this.#device.i32(step.logitRows), this.#device.f32(logits)]
      for (let r = 0; r < rows; r++) for (let v = 0; v < VOCAB; v++) to[r * VOCAB + v] = logitOf(h[from[r]!]!, v)
    })
    return logits
  }
}

/** The same model by direct hashing of one whole sequence: no pages, no batches. */
export class Alone {
  readonly #kinds: readonly LayerKind[]
  readonly #promptLength: number
  /** What each layer has taken in. */
  readonly #seen: number[][]
  #length = 0

  constructor(kinds: readonly LayerKind[], promptLength: number) {
    this.#kinds = kinds
    this.#promptLength = promptLength
    this.#seen = kinds.map(() => [])
  }

  /** The logits after one more token. */
  push(token: number): Float32Array {
    let x = embed(token, this.#length++, this.#promptLength)
    for (const [layer, kind] of this.#kinds.entries()) {
      const seen = this.#seen[layer]!
      seen.push(x)
      const visible = kind === 'state' || kind.window === 0 ? seen : seen.slice(-kind.window)
      x = mix(
        visible.reduce((hash, value) => mix(hash, value), 0),
        x,
      )
    }
    return Float32Array.from({ length: VOCAB }, (_, v) => logitOf(x, v))
  }
}
