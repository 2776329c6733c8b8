import { type CausalLM, type LayerCache, type PagedSpec, type Step, unquantized } from '@aphrodite/layers'
import { cachingLayers } from '@aphrodite/layers/internal'
import {
  Arena,
  contiguousStrides,
  type Device,
  type Graph,
  PAGE_TOKENS,
  PagedCache,
  product,
  singleRank,
  type Tensor,
  Workspace,
} from '@aphrodite/tensor'
import { Random } from '@aphrodite/testing'
import { Recorder } from '../src/recorder.ts'
import { type Call, launch, type StepOps } from '../src/step-list.ts'
import { withKernels } from './bench.ts'

export interface OneSequenceOptions {
  /** Columns of its block table: 16 tokens each. */
  readonly columns: number
  readonly seed?: number
}

/** A decode step of one sequence of a model with random weights in bf16, whose context changes from one replay to the next. */
export class OneSequence {
  readonly device: Device
  readonly calls: readonly Call[]
  readonly #model: CausalLM
  readonly #arena: Arena
  readonly #workspace: Workspace
  readonly #caches: Tensor[] = []
  readonly #logits: Tensor
  readonly #columns: number
  readonly #seed: number
  readonly #ints: Record<'ids' | 'positions' | 'slots' | 'lengths' | 'tables', Tensor>

  constructor(real: Device, model: CausalLM, { columns, seed = 1 }: OneSequenceOptions) {
    const recorder = new Recorder(real.kernels)
    const device = withKernels(real, recorder.kernels)
    this.device = real
    this.#model = model
    this.#columns = columns
    this.#seed = seed
    const random = new Random(seed)
    this.#arena = new Arena(device, 1 << 24)
    const weights = model.materialize({
      device,
      arena: this.#arena,
      tp: singleRank,
      dtype: 'bf16',
      quantization: unquantized,
      maxModelLen: columns * PAGE_TOKENS,
    })
    model.loadWeights(
      [...weights.slots].map(([name, [slot]]) => {
        const shape = slot!.shape
        const values = random.normals(product(shape), shape.length > 1 ? shape.at(-1)! ** -0.5 : 0.1, shape.length > 1 ? 0 : 1)
        return { name, array: { bytes: new Uint8Array(values.buffer), dtype: 'f32', shape, strides: contiguousStrides(shape) } }
      }),
    )
    const kvCaches = cachingLayers(model).map((layer): LayerCache => {
      const { kvHeads, keyDim, valueDim } = layer.cacheSpec() as PagedSpec
      const shape = { kvHeads, keyDim, valueDim, dtype: 'bf16' as const }
      const memory = this.#arena.empty([((columns + 1) * device.pageBytes(shape)) / 2], 'bf16')
      this.#caches.push(memory)
      return { kind: 'paged', group: 0, pages: new PagedCache(memory.address, shape, columns + 1) }
    })
    this.#workspace = new Workspace(device, 1 << 22)
    const ints = (...shape: number[]): Tensor => this.#workspace.empty(shape, 'i32')
    this.#ints = { ids: ints(1), positions: ints(1), slots: ints(1), lengths: ints(1), tables: ints(1, columns) }
    const [queryStarts, logitRows] = [ints(2), ints(1)]
    device.upload(queryStarts, Int32Array.of(0, 1))
    device.upload(logitRows, Int32Array.of(0))
    const { ids, positions, slots, lengths, tables } = this.#ints
    const step: Step = {
      inputIds: ids,
      positions,
      promptLengths: ints(1),
      kvCaches,
      attnMetadata: [
        {
          kind: 'paged',
          slots,
          queryStarts,
          contextLengths: lengths,
          pageTables: tables,
          maxQueryLength: 1,
          maxContextLength: columns * PAGE_TOKENS,
        },
      ],
      workspace: this.#workspace,
      logitRows,
    }
    device.upload(step.promptLengths, Int32Array.of(1))
    this.#logits = this.#arena.empty([1, model.vocabSize], 'f32')
    this.calls = recorder.record(() => {
      // What the step computed is given back but for its logits, which the engine reads in the same step.
      const marker = this.#workspace.empty([1], 'i32')
      const logits = this.#workspace.tidy(marker, () => model.logits(model.forward(step), step))
      device.kernels.copy(this.#logits, logits)
      logits.block.live = false
    })
  }

  capture(): Graph {
    return this.device.capture!(() => {
      for (const call of this.calls) launch(this.device.kernels as StepOps, call)
    })
  }

  /** Tokens of the sequence, the one of this step included; past keys and values, and the page table, follow from it. */
  prepare(length: number, { badPage, slot }: { readonly badPage?: number; readonly slot?: number } = {}): void {
    const random = new Random(this.#seed * 1000 + length)
    const pages = Array.from({ length: this.#columns }, (_, i) => i + 1)
    for (let i = pages.length - 1; i > 0; i--) {
      const j = random.below(i + 1)
      ;[pages[i], pages[j]] = [pages[j]!, pages[i]!]
    }
    const used = Math.ceil(length / PAGE_TOKENS)
    const upload = (t: Tensor, ...values: number[]) => this.device.upload(t, Int32Array.from(values))
    const last = length - 1
    upload(this.#ints.ids, random.below(this.#model.vocabSize))
    upload(this.#ints.positions, last)
    if (badPage !== undefined) pages[badPage] = 1_000_000
    upload(this.#ints.slots, slot ?? pages[Math.floor(last / PAGE_TOKENS)]! * PAGE_TOKENS + (last % PAGE_TOKENS))
    upload(this.#ints.lengths, length)
    upload(this.#ints.tables, ...pages.map((page, i) => (i < used ? page : 0)))
    for (const cache of this.#caches) this.device.upload(cache, random.normals(cache.size))
  }

  /** Logits and caches that one replay leaves. */
  results(run: () => void): { logits: Float32Array; caches: Float32Array[] } {
    this.device.upload(this.#logits, new Float32Array(this.#logits.size).fill(Number.NaN))
    run()
    return { logits: this.logits(), caches: this.#caches.map((c) => this.device.download(c) as Float32Array) }
  }
  logits(): Float32Array {
    return this.device.download(this.#logits) as Float32Array
  }
  close(): void {
    this.#workspace.release()
    this.#arena.release()
  }
}
