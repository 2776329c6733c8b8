import type { CausalLM, LayerCache, Step } from '@aphrodite/layers'
import { type Device, Workspace } from '@aphrodite/tensor'
import { BatchBuilder } from './batch.ts'
import type { CacheGroup } from './cache-groups.ts'
import { DecodeGraphs } from './decode-graphs.ts'
import { PromptRows } from './prompt-rows.ts'
import { Sampler } from './sampler.ts'
import type { Sequence } from './sequence.ts'

/** Computes a step: tensors, forward, logits, tokens. */
export class ModelRunner {
  readonly #model: CausalLM
  readonly #device: Device
  readonly #workspace: Workspace
  readonly #builder: BatchBuilder
  readonly #sampler: Sampler
  readonly #promptRows: PromptRows
  readonly #graphs: DecodeGraphs
  readonly #drawing: Sequence[] = []
  readonly #rows: number[] = []

  constructor(init: {
    model: CausalLM
    device: Device
    groups: readonly CacheGroup[]
    kvCaches: readonly LayerCache[]
    maxModelLen: number
    chunkRows: number
    workspaceBytes: number
  }) {
    this.#model = init.model
    this.#device = init.device
    this.#workspace = new Workspace(init.device, init.workspaceBytes)
    this.#builder = new BatchBuilder(init.device, init.groups, init.kvCaches, init.maxModelLen)
    this.#sampler = new Sampler(init.model, init.device, init)
    this.#graphs = new DecodeGraphs(init.model, init.device)
    this.#promptRows = new PromptRows(init.model, init.device, init.chunkRows)
  }

  /** Runs the batch; sequences that draw have their token in `drawn` afterwards. The only wait of a step is in here. */
  async run(batch: readonly Sequence[]): Promise<void> {
    const drawing = this.#drawing
    drawing.length = 0
    let flat = 0
    for (const s of batch) {
      flat += s.scheduled
      s.drawn = -1
      s.drawnLogprob = undefined
      if (!s.draws) continue
      s.lastRow = flat - 1
      drawing.push(s)
    }
    this.#sampler.arrange(drawing)
    this.#rows.length = 0
    for (const s of drawing) this.#rows.push(s.lastRow)
    try {
      const step = this.#builder.build(batch, this.#rows, this.#workspace)
      const decodes = flat === drawing.length && batch.every((s) => s.computed >= s.promptLength)
      const logits = decodes && this.#sampler.looksOnce(drawing) ? this.#graphs.logits(step) : undefined
      if (logits) this.#sampler.enqueue(() => logits, step, drawing)
      else this.#walk(step, batch)
      await this.#device.synchronize()
      this.#sampler.collect(drawing)
    } finally {
      this.#workspace.reset()
    }
  }

  /** Forward by the model's own code: prompts, and decode steps that are not captured (yet). */
  #walk(step: Step, batch: readonly Sequence[]): void {
    const hidden = this.#model.forward(step)
    this.#sampler.enqueue((rows) => this.#model.logits(hidden, rows), step, this.#drawing)
    this.#promptRows.compute(hidden, step, batch)
  }

  release(): void {
    this.#graphs.release()
    this.#sampler.release()
    this.#workspace.release()
  }
}
