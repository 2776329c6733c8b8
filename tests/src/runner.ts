import { type AttentionMetadata, type CausalLM, type Env, type LayerCache, type PagedSpec, type Step, unquantized } from '@aphrodite/layers'
import { cachingLayers } from '@aphrodite/layers/internal'
import {
  Arena,
  type Communicator,
  type Device,
  type FloatDType,
  type NamedArray,
  PAGE_TOKENS,
  PagedCache,
  singleRank,
  Workspace,
} from '@aphrodite/tensor'

export interface RunnerOptions {
  readonly dtype: FloatDType
  /** The longest sequence. Default 256. */
  readonly maxTokens?: number
  /** This rank among others. Default: alone. */
  readonly tp?: Communicator
}

/** One sequence at a time through a model, with a step built by hand: models are tested by it without the engine. */
export class Runner {
  readonly #model: CausalLM
  readonly #device: Device
  readonly #arena: Arena
  readonly #workspace: Workspace
  readonly #caches: LayerCache[]
  readonly #groups: number
  readonly #pages: number

  constructor(model: CausalLM, weights: Iterable<NamedArray>, device: Device, { dtype, maxTokens = 256, tp = singleRank }: RunnerOptions) {
    this.#model = model
    this.#device = device
    this.#arena = new Arena(device, 1 << 20)
    const env: Env = { device, arena: this.#arena, tp, dtype, quantization: unquantized }
    model.materialize(env)
    model.loadWeights(weights)
    this.#pages = Math.ceil(maxTokens / PAGE_TOKENS) + 1
    const groups: string[] = []
    this.#caches = cachingLayers(model).map((layer): LayerCache => {
      const spec = layer.cacheSpec() as PagedSpec
      const key = JSON.stringify(spec)
      if (!groups.includes(key)) groups.push(key)
      const shape = { kvHeads: spec.kvHeads, keyDim: spec.keyDim, valueDim: spec.valueDim, dtype }
      const address = this.#arena.reserve(this.#pages * device.pageBytes(shape))
      return { kind: 'paged', group: groups.indexOf(key), pages: new PagedCache(address, shape, this.#pages) }
    })
    this.#groups = groups.length
    this.#workspace = new Workspace(device, 64 << 20)
  }

  /** Logits of every token of a sequence, computed `chunk` tokens at a time. */
  logits(ids: readonly number[], chunk = ids.length): Float32Array[] {
    const rows: Float32Array[] = []
    for (let start = 0; start < ids.length; start += chunk) rows.push(...this.#step(ids.slice(start, start + chunk), start, ids.length))
    return rows
  }

  /** The most likely tokens after a prompt. */
  greedy(prompt: readonly number[], count: number): number[] {
    const tokens: number[] = []
    let logits = this.logits(prompt).at(-1)!
    for (;;) {
      tokens.push(logits.indexOf(Math.max(...logits)))
      if (tokens.length === count) return tokens
      logits = this.#step([tokens.at(-1)!], prompt.length + tokens.length - 1, prompt.length)[0]!
    }
  }

  close(): void {
    this.#workspace.release()
    this.#arena.release()
  }

  #step(ids: readonly number[], start: number, promptLength: number): Float32Array[] {
    const w = this.#workspace
    const i32 = (values: readonly number[], shape: readonly number[] = [values.length]) => {
      const t = w.empty(shape, 'i32')
      this.#device.upload(t, Int32Array.from(values))
      return t
    }
    const length = start + ids.length
    const positions = ids.map((_, i) => start + i)
    // Pages from the last to the first, so that nothing works because tokens happen to lie in a row.
    const pageOf = (index: number) => this.#pages - 1 - index
    const table = Array.from({ length: Math.ceil(length / PAGE_TOKENS) }, (_, i) => pageOf(i))
    const metadata: AttentionMetadata = {
      kind: 'paged',
      slots: i32(positions.map((p) => pageOf(Math.floor(p / PAGE_TOKENS)) * PAGE_TOKENS + (p % PAGE_TOKENS))),
      queryStarts: i32([0, ids.length]),
      contextLengths: i32([length]),
      pageTables: i32(table, [1, table.length]),
      maxQueryLength: ids.length,
      maxContextLength: length,
    }
    const step: Step = {
      inputIds: i32(ids),
      positions: i32(positions),
      promptLengths: i32(ids.map(() => promptLength)),
      kvCaches: this.#caches,
      attnMetadata: Array.from({ length: this.#groups }, () => metadata),
      workspace: w,
      logitRows: i32(ids.map((_, i) => i)),
    }
    const logits = this.#model.logits(this.#model.forward(step), step)
    const flat = this.#device.download(logits) as Float32Array
    w.reset()
    return ids.map((_, i) => flat.slice(i * this.#model.vocabSize, (i + 1) * this.#model.vocabSize))
  }
}
