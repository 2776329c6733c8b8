import { type AttentionMetadata, type CacheSpec, type CausalLM, type Env, type LayerCache, type Step, unquantized } from '@aphrodite/layers'
import { cachingLayers, checkedForward, checkedLogits, checkNothingKept } from '@aphrodite/layers/internal'
import {
  Arena,
  type CacheDType,
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
  /** Of keys and values. Default: dtype. */
  readonly cacheDtype?: CacheDType
  /** The longest sequence. Default 256. */
  readonly maxTokens?: number
  /** This rank among others. Default: alone. */
  readonly tp?: Communicator
  /** Default: `model.loadWeights`. */
  readonly load?: (weights: Iterable<NamedArray>) => void
}

/**
 * One sequence at a time through a model, with a step built by hand: models are tested by it without the engine. It loads the
 * model and holds it to its contract at every step.
 */
export class Runner {
  readonly #model: CausalLM
  readonly #device: Device
  readonly #arena: Arena
  readonly #workspace: Workspace
  readonly #caches: LayerCache[]
  readonly #groups: readonly CacheSpec['kind'][]
  readonly #pages: number

  constructor(model: CausalLM, weights: Iterable<NamedArray>, device: Device, options: RunnerOptions) {
    const { dtype, cacheDtype = dtype, maxTokens = 256, tp = singleRank, load = (w) => model.loadWeights(w) } = options
    this.#model = model
    this.#device = device
    this.#arena = new Arena(device, 1 << 20)
    const env: Env = { device, arena: this.#arena, tp, dtype, quantization: unquantized }
    model.materialize(env)
    load(weights)
    model.assertLoaded()
    this.#pages = Math.ceil(maxTokens / PAGE_TOKENS) + 1
    const groups: string[] = []
    this.#caches = cachingLayers(model).map((layer): LayerCache => {
      const spec = layer.cacheSpec()
      const key = JSON.stringify(spec)
      if (!groups.includes(key)) groups.push(key)
      if (spec.kind === 'state') {
        const tensors = Object.entries(spec.tensors).map(([name, t]) => [name, this.#arena.empty([2, ...t.shape], t.dtype)])
        return { kind: 'state', group: groups.indexOf(key), tensors: Object.fromEntries(tensors) }
      }
      const shape = { kvHeads: spec.kvHeads, keyDim: spec.keyDim, valueDim: spec.valueDim, dtype: cacheDtype }
      const address = this.#arena.reserve(this.#pages * device.pageBytes(shape))
      return { kind: 'paged', group: groups.indexOf(key), pages: new PagedCache(address, shape, this.#pages) }
    })
    this.#groups = groups.map((key) => (JSON.parse(key) as CacheSpec).kind)
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
    const queryStarts = i32([0, ids.length])
    const paged: AttentionMetadata = {
      kind: 'paged',
      slots: i32(positions.map((p) => pageOf(Math.floor(p / PAGE_TOKENS)) * PAGE_TOKENS + (p % PAGE_TOKENS))),
      queryStarts,
      contextLengths: i32([length]),
      pageTables: i32(table, [1, table.length]),
      maxQueryLength: ids.length,
      maxContextLength: length,
    }
    const state: AttentionMetadata = { kind: 'state', slots: i32([1]), fresh: i32([start === 0 ? 1 : 0]), queryStarts }
    const step: Step = {
      inputIds: i32(ids),
      positions: i32(positions),
      promptLengths: i32(ids.map(() => promptLength)),
      kvCaches: this.#caches,
      attnMetadata: this.#groups.map((kind) => (kind === 'paged' ? paged : state)),
      workspace: w,
      logitRows: i32(ids.map((_, i) => i)),
    }
    const logits = checkedLogits(this.#model, checkedForward(this.#model, step), step)
    const flat = this.#device.download(logits) as Float32Array
    w.reset()
    checkNothingKept(this.#model)
    return ids.map((_, i) => flat.slice(i * this.#model.vocabSize, (i + 1) * this.#model.vocabSize))
  }
}
