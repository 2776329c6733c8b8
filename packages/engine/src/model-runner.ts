import type { CausalLM, LayerCache, Step } from '@aphrodite/layers'
import { Arena, type Device, type Tensor, Workspace } from '@aphrodite/tensor'
import { BatchBuilder, type BuiltStep } from './batch.ts'
import type { CacheGroup } from './cache-groups.ts'
import { blocksFor } from './paged-group.ts'
import type { PendingStep } from './pending-step.ts'
import { collectPromptRows, PromptRows } from './prompt-rows.ts'
import { type Arrangement, collectReports, Sampler } from './sampler.ts'
import type { Sequence } from './sequence.ts'
import { type GraphEnd, StepGraphs } from './step-graphs.ts'
import { decodeShape, decodeShapes, paddedRows, promptShape, promptShapes, type StepShape } from './step-shapes.ts'

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
  readonly #graphs: StepGraphs
  /** i32 [maxNumSeqs]: what was drawn last, for the step that is enqueued before the host has seen it. */
  readonly #lastTokens: Tensor
  readonly #overlaps: boolean
  readonly #pads: boolean
  /** The most rows and tokens of a padded step. */
  readonly #most: { readonly rows: number; readonly tokens: number }
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
    this.#most = { rows: Math.min(init.maxNumSeqs, init.maxNumBatchedTokens, init.chunkRows), tokens: init.maxNumBatchedTokens }
    this.#workspace = new Workspace(device, init.workspaceBytes)
    this.#constants = new Arena(device, 1)
    this.#lastTokens = this.#constants.empty([init.maxNumSeqs], 'i32')
    this.#builder = new BatchBuilder(device, init.groups, init.kvCaches, init.maxModelLen)
    this.#sampler = new Sampler(model, device, this.#lastTokens, init)
    this.#graphs = new StepGraphs(device, this.#pads ? MOST_PADDED_GRAPHS : MOST_EXACT_GRAPHS, (built, end) =>
      this.#enqueueCaptured(built, end),
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
    const once = this.#sampler.looksOnce(drawing, arrangement)
    const shape = once && this.#pads ? this.#shapeOf(batch, flat, decodes) : undefined
    const captured = shape !== undefined || (once && decodes)
    try {
      const built = this.#builder.build(batch, drawing, this.#workspace, shape)
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
   * Captures steps before they are met: decode steps of these numbers of sequences, or of all, and then single prompts too. Each is
   * computed once on rows that are nobody's, so that what a backend prepares when it meets a shape is ready too. Only where steps
   * are padded to few shapes.
   */
  captureAtStart(sequences: readonly number[] | true): void {
    if (!this.#pads || !this.#graphs.possible) return
    const most = this.#most
    const counts = sequences === true ? Array.from({ length: most.rows }, (_, i) => i + 1) : sequences
    const rows = counts.map((n) => paddedRows(Math.min(n, most.rows), most.rows))
    const shapes = decodeShapes(rows, (blocks) => this.#builder.columns(blocks, true), blocksFor(this.#maxModelLen))
    if (sequences === true) shapes.push(...promptShapes(this.#maxModelLen, most, this.#columnsOf))
    const build = (shape: StepShape): BuiltStep => this.#builder.build([], [], this.#workspace, shape)
    try {
      for (const shape of shapes) {
        this.#enqueueCaptured(build(shape), 'tokens')
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

  readonly #columnsOf = (context: number): number => this.#builder.columns(blocksFor(context), true)

  /** What a step is padded to; undefined for one that is not captured. */
  #shapeOf(batch: readonly Sequence[], tokens: number, decodes: boolean): StepShape | undefined {
    const sequences = batch.length
    if (!this.#graphs.possible || sequences > this.#most.rows) return undefined
    let longest = 1
    for (let i = 0; i < sequences; i++) longest = Math.max(longest, batch[i]!.computed + batch[i]!.scheduled)
    if (decodes) return decodeShape(paddedRows(sequences, this.#most.rows), this.#columnsOf(longest))
    for (let i = 0; i < sequences; i++) if (batch[i]!.request.needsPromptRows) return undefined
    return promptShape({ sequences, tokens, longest }, this.#most, this.#columnsOf)
  }

  /** A step by a graph, if there is one. */
  #replay(step: PendingStep, built: BuiltStep, arrangement: Arrangement): boolean {
    const { drawing } = step
    const plain = !arrangement.adjusted && arrangement.firstReported === drawing.length
    const replayed = this.#graphs.replay(built, plain ? 'tokens' : 'logits')
    if (!replayed) return false
    if (plain) step.tokens = this.#device.read(this.#lastTokens.narrow(0, 0, Math.max(1, drawing.length)))
    else this.#draw(step, built, arrangement, () => replayed.logits!)
    return true
  }

  /** What a graph of a step consists of. */
  #enqueueCaptured(built: BuiltStep, end: GraphEnd): Tensor | undefined {
    const { step, sampling, sources } = built
    if (this.#overlaps) step.inputIds.kernels.feedTokens(step.inputIds, this.#lastTokens, sources)
    const { workspace } = step
    // What the model leaves behind but logits is given back: a device that fuses the graph's ops need not make it.
    const logits = workspace.tidy(workspace.empty([1], 'i32'), () => this.#model.logits(this.#model.forward(step), step))
    if (end === 'logits') return logits
    logits.kernels.sample(this.#lastTokens.narrow(0, 0, logits.dim(0)), logits, sampling)
    return undefined
  }

  /** Forward by the model's own code: long prompts, and steps that are not captured (yet). */
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
