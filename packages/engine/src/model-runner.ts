import type { CausalLM, LayerCache } from '@aphrodite/layers'
import { type Device, Workspace } from '@aphrodite/tensor'
import { BatchBuilder } from './batch.ts'
import type { CacheGroup } from './cache-groups.ts'
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
      const hidden = this.#model.forward(step)
      this.#sampler.enqueue(hidden, step, drawing)
      this.#promptRows.compute(hidden, step, batch)
      await this.#device.synchronize()
      this.#sampler.collect(drawing)
    } finally {
      this.#workspace.reset()
    }
  }

  release(): void {
    this.#sampler.release()
    this.#workspace.release()
  }
}
