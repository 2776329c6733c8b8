import { type CausalLM, type LayerCache, type PagedSpec, type Step, unquantized } from '@aphrodite/layers'
import { cachingLayers } from '@aphrodite/layers/internal'
import {
  Arena,
  contiguousStrides,
  type Device,
  type FloatDType,
  PAGE_TOKENS,
  PagedCache,
  product,
  singleRank,
  sizeOf,
  Tensor,
  Workspace,
} from '@aphrodite/tensor'
import { createReferenceDevice, Random } from '@aphrodite/testing'
import { Recorder } from '../src/recorder.ts'
import { type Call, launch, type StepOps } from '../src/step-list.ts'
import { withKernels } from './bench.ts'
import { emulated } from './emulated.ts'

export interface DecodeStepOptions {
  readonly dtype?: FloatDType
  /** Tokens of each sequence, the one of this step included. */
  readonly contexts?: readonly number[]
  /** Queries of each sequence. Default 1. */
  readonly queries?: number
  readonly seed?: number
  /** Where ops are done. Default: the reference. */
  readonly real?: Device
}

/** A step of a model with random weights, written down on the reference device; it can be done as often as wanted, as it is or fused. */
export class DecodeStep {
  readonly device: Device
  readonly calls: readonly Call[]
  readonly ops: StepOps
  readonly #inputs: { tensor: Tensor; values: Int32Array }[] = []
  readonly #workspace: Workspace
  readonly #memory: Tensor
  readonly #caches: Tensor[] = []
  readonly #logits: Tensor
  readonly #seed: number

  constructor(
    model: CausalLM,
    { dtype = 'f32', contexts = [37], queries = 1, seed = 1, real = createReferenceDevice() }: DecodeStepOptions = {},
  ) {
    this.#seed = seed
    const recorder = new Recorder(real.kernels)
    const device = withKernels(real, recorder.kernels)
    this.device = device
    this.ops = emulated(device, real.kernels)
    const arena = new Arena(device, 1 << 20)
    const random = new Random(seed)
    const weights = model.materialize({ device, arena, tp: singleRank, dtype, quantization: unquantized, maxModelLen: 64 })
    model.loadWeights(
      [...weights.slots].map(([name, [slot]]) => {
        const shape = slot!.shape
        const values = random.normals(product(shape), shape.length > 1 ? shape.at(-1)! ** -0.5 : 0.1, shape.length > 1 ? 0 : 1)
        return { name, array: { bytes: new Uint8Array(values.buffer), dtype: 'f32', shape, strides: contiguousStrides(shape) } }
      }),
    )
    const columns = 4
    const pages = contexts.length * columns + 1
    const kvCaches = cachingLayers(model).map((layer): LayerCache => {
      const { kvHeads, keyDim, valueDim } = layer.cacheSpec() as PagedSpec
      const shape = { kvHeads, keyDim, valueDim, dtype }
      const bytes = pages * device.pageBytes(shape)
      const memory = arena.empty([bytes / sizeOf(dtype)], dtype)
      this.#caches.push(memory)
      return { kind: 'paged', group: 0, pages: new PagedCache(memory.address, shape, pages) }
    })
    this.#workspace = new Workspace(device, 1 << 18)
    const marker = this.#workspace.empty([1], 'i32')
    this.#memory = new Tensor(marker.address, 'f32', [(1 << 18) / 4], [1], this.#workspace, marker.block)

    const places = contexts.flatMap((length, s) => Array.from({ length: queries }, (_, i) => ({ s, at: length - queries + i })))
    const pageOf = (s: number, column: number): number => pages - 1 - (s * columns + column)
    const batch = {
      kind: 'paged' as const,
      slots: this.#ints(places.map(({ s, at }) => pageOf(s, Math.floor(at / PAGE_TOKENS)) * PAGE_TOKENS + (at % PAGE_TOKENS))),
      queryStarts: this.#ints(Array.from({ length: contexts.length + 1 }, (_, s) => s * queries)),
      contextLengths: this.#ints(contexts),
      pageTables: this.#ints(
        contexts.flatMap((_, s) => Array.from({ length: columns }, (_, c) => pageOf(s, c))),
        [contexts.length, columns],
      ),
      maxQueryLength: queries,
      maxContextLength: columns * PAGE_TOKENS,
    }
    const step: Step = {
      inputIds: this.#ints(places.map(() => random.below(model.vocabSize))),
      positions: this.#ints(places.map(({ at }) => at)),
      promptLengths: this.#ints(places.map(({ s }) => contexts[s]! - 1)),
      kvCaches,
      attnMetadata: [batch],
      workspace: this.#workspace,
      logitRows: this.#ints(contexts.map((_, s) => s * queries + queries - 1).reverse()),
    }
    let logits: Tensor | undefined
    this.calls = recorder.record(() => {
      // Of all that the step computed only its logits can be looked at afterwards.
      logits = this.#workspace.tidy(this.#workspace.empty([1], 'i32'), () => model.logits(model.forward(step), step))
    })
    this.#logits = logits!
  }

  /** Does it, on memory that is poisoned but for the inputs and the cache: logits and caches afterwards. */
  run(calls: readonly Call[]): { logits: Float32Array; caches: Float32Array[] } {
    return this.runBy(() => {
      for (const call of calls) launch(this.ops, call)
    })
  }

  runBy(launchAll: () => void): { logits: Float32Array; caches: Float32Array[] } {
    const upload = (t: Tensor, values: Float32Array | Int32Array) => this.device.upload(t, values)
    upload(this.#memory, new Float32Array(this.#memory.size).fill(Number.NaN))
    for (const { tensor, values } of this.#inputs) upload(tensor, values)
    const random = new Random(this.#seed + 1)
    for (const cache of this.#caches) upload(cache, random.normals(cache.size))
    launchAll()
    return {
      logits: this.device.download(this.#logits) as Float32Array,
      caches: this.#caches.map((cache) => this.device.download(cache) as Float32Array),
    }
  }

  #ints(values: readonly number[], shape: readonly number[] = [values.length]): Tensor {
    const tensor = this.#workspace.empty(shape, 'i32')
    this.#inputs.push({ tensor, values: Int32Array.from(values) })
    return tensor
  }
}
