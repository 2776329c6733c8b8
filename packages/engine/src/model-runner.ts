import type { CausalLM, LayerCache, Step } from '@aphrodite/layers'
import { Arena, type Device, type Tensor, Workspace } from '@aphrodite/tensor'
import { BatchBuilder, type BuiltStep, type DecodeShape } from './batch.ts'
import type { CacheGroup } from './cache-groups.ts'
import { DecodeGraphs, type GraphEnd } from './decode-graphs.ts'
import { decodeShapes, paddedRows } from './decode-shapes.ts'
import { blocksFor } from './paged-group.ts'
import type { PendingStep } from './pending-step.ts'
import { collectPromptRows, PromptRows } from './prompt-rows.ts'
import { type Arrangement, collectReports, Sampler } from './sampler.ts'
import type { Sequence } from './sequence.ts'

/** Graphs of padded shapes are few and large, those of exact ones many and small. */
const MOST_PADDED_GRAPHS = 256
const MOST_EXACT_GRAPHS = 64

/** Computes steps: tensors, forward, logits, tokens. A step is enqueued, and collected when its tokens are wanted. */
export class ModelRunner {
  readonly #model: CausalLM
  readonly #device: Device
  readonly #workspace: Workspace
  readonly #constants: Arena
  readonly #builder: BatchBuilder
  readonly #sampler: Sampler
  readonly #promptRows: PromptRows
  readonly #graphs: DecodeGraphs
  /** i32 [maxNumSeqs]: what was drawn last, for the step that is enqueued before the host has seen it. */
  readonly #lastTokens: Tensor
  readonly #overlaps: boolean
  readonly #pads: boolean
  /** The most rows of a padded step. */
  readonly #mostRows: number
  readonly #maxModelLen: number

  constructor(init: {
    model: CausalLM
    device: Device
    groups: readonly CacheGroup[]
    kvCaches: readonly LayerCache[]
    maxModelLen: number
    maxNumSeqs: number
    maxNumBatchedTokens: number
    chunkRows: number
    workspaceBytes: number
    /** Whether a step may be enqueued before the one before it was collected. */
    overlaps: boolean
  }) {
    const { model, device } = init
    this.#model = model
    this.#device = device
    this.#overlaps = init.overlaps
    this.#pads = device.asynchronous
    this.#maxModelLen = init.maxModelLen
    this.#mostRows = Math.min(init.maxNumSeqs, init.maxNumBatchedTokens, init.chunkRows)
    this.#workspace = new Workspace(device, init.workspaceBytes)
    this.#constants = new Arena(device, 1)
    this.#lastTokens = this.#constants.empty([init.maxNumSeqs], 'i32')
    this.#builder = new BatchBuilder(device, init.groups, init.kvCaches, init.maxModelLen)
    this.#sampler = new Sampler(model, device, this.#lastTokens, init)
    this.#graphs = new DecodeGraphs(device, this.#pads ? MOST_PADDED_GRAPHS : MOST_EXACT_GRAPHS, (built, end) =>
      this.#enqueueDecode(built, end),
    )
    this.#promptRows = new PromptRows(model, device, init.chunkRows)
  }

  /** Enqueues step.batch as it is scheduled. The sequences are as they were if it throws. */
  launch(step: PendingStep): void {
    const { batch, drawing } = step
    step.tokens = step.reports = undefined
    step.prompts = []
    let flat = 0
    let draws = 0
    let decodes = true
    for (let i = 0; i < batch.length; i++) {
      const s = batch[i]!
      flat += s.scheduled
      const last = s.draws
      if (!last || s.scheduled !== 1 || s.computed < s.promptLength) decodes = false
      if (!last) continue
      s.lastRow = flat - 1
      drawing[draws++] = s
    }
    drawing.length = draws
    const arrangement = this.#sampler.arrange(drawing)
    const captured = decodes && this.#sampler.looksOnce(drawing, arrangement)
    try {
      const built = this.#builder.build(batch, drawing, this.#workspace, captured && this.#pads ? this.#shapeOf(batch) : undefined)
      if (!captured || !this.#replay(step, built, arrangement)) this.#walk(step, built, arrangement)
    } finally {
      this.#workspace.reset()
    }
    step.advance()
  }

  /** Waits for a step: sequences that drew have their token in `drawn` afterwards. */
  async collect(step: PendingStep): Promise<void> {
    const { batch, drawing, reports, prompts } = step
    const wait = step.tokens!.wait()
    const plain = !reports && prompts.length === 0
    const tokens = plain ? await wait : (await Promise.all([wait, collectReports(reports, drawing), collectPromptRows(prompts)]))[0]
    for (let i = 0; i < batch.length; i++) batch[i]!.drawn = -1
    for (let i = 0; i < drawing.length; i++) drawing[i]!.drawn = tokens[i]!
  }

  /**
   * Captures decode steps before they are met: of these numbers of sequences, or of all. Each is computed once on rows that are
   * nobody's, so that what a backend prepares when it meets a shape is ready too. Only where steps are padded to few shapes.
   */
  captureAtStart(sequences: readonly number[] | true): void {
    if (!this.#pads || !this.#graphs.possible) return
    const counts = sequences === true ? Array.from({ length: this.#mostRows }, (_, i) => i + 1) : sequences
    const rows = counts.map((n) => paddedRows(Math.min(n, this.#mostRows), this.#mostRows))
    const build = (shape: DecodeShape): BuiltStep => this.#builder.build([], [], this.#workspace, shape)
    try {
      for (const shape of decodeShapes(rows, (blocks) => this.#builder.columns(blocks, true), blocksFor(this.#maxModelLen))) {
        this.#enqueueDecode(build(shape), 'tokens')
        this.#workspace.reset()
        const possible = this.#graphs.prepare(build(shape), 'tokens')
        this.#workspace.reset()
        if (!possible) return
      }
      // What went wrong on the device is known here, not in somebody's first step.
      this.#device.download(this.#lastTokens)
    } finally {
      this.#workspace.reset()
    }
  }

  /** Waits for everything that is enqueued, whatever came of it. */
  finish(): void {
    try {
      this.#device.download(this.#lastTokens)
    } catch {
      // Its memory is given back next: whoever used the engine has gone.
    }
  }

  release(): void {
    this.#graphs.release()
    this.#constants.release()
    this.#workspace.release()
  }

  #shapeOf(batch: readonly Sequence[]): DecodeShape | undefined {
    if (!this.#graphs.possible || batch.length > this.#mostRows) return undefined
    let longest = 1
    for (let i = 0; i < batch.length; i++) longest = Math.max(longest, batch[i]!.computed + 1)
    return { rows: paddedRows(batch.length, this.#mostRows), columns: this.#builder.columns(blocksFor(longest), true) }
  }

  /** A decode step by a graph, if there is one. */
  #replay(step: PendingStep, built: BuiltStep, arrangement: Arrangement): boolean {
    const { drawing } = step
    const plain = !arrangement.adjusted && arrangement.firstReported === drawing.length
    const replayed = this.#graphs.replay(built, plain ? 'tokens' : 'logits')
    if (!replayed) return false
    if (plain) step.tokens = this.#device.read(this.#lastTokens.narrow(0, 0, drawing.length))
    else this.#draw(step, built, arrangement, () => replayed.logits!)
    return true
  }

  /** What a graph of a decode step consists of. */
  #enqueueDecode(built: BuiltStep, end: GraphEnd): Tensor | undefined {
    const { step, sampling, sources } = built
    if (this.#overlaps) step.inputIds.kernels.feedTokens(step.inputIds, this.#lastTokens, sources)
    const { workspace } = step
    // What the model leaves behind but logits is given back: a device that fuses the graph's ops need not make it.
    const logits = workspace.tidy(workspace.empty([1], 'i32'), () => this.#model.logits(this.#model.forward(step), step))
    if (end === 'logits') return logits
    logits.kernels.sample(this.#lastTokens.narrow(0, 0, logits.dim(0)), logits, sampling)
    return undefined
  }

  /** Forward by the model's own code: prompts, and decode steps that are not captured (yet). */
  #walk(step: PendingStep, built: BuiltStep, arrangement: Arrangement): void {
    const { inputIds } = built.step
    if (built.feeds) inputIds.kernels.feedTokens(inputIds, this.#lastTokens, built.sources)
    const hidden = this.#model.forward(built.step)
    this.#draw(step, built, arrangement, (rows) => this.#model.logits(hidden, rows))
    this.#promptRows.enqueue(hidden, built.step, step.batch, step.prompts)
  }

  #draw(step: PendingStep, built: BuiltStep, arrangement: Arrangement, logitsOf: (rows: Step) => Tensor): void {
    const n = step.drawing.length
    // Penalties of later rows may still look at what was drawn last.
    const last = this.#lastTokens.narrow(0, 0, Math.max(1, n))
    const tokens = this.#overlaps && n > 0 ? built.step.workspace.empty([n], 'i32') : last
    step.reports = this.#sampler.enqueue(logitsOf, built, step.drawing, arrangement, tokens)
    if (tokens !== last) tokens.kernels.copy(last, tokens)
    step.tokens = this.#device.read(tokens)
  }
}
