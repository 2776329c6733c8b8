import type { CausalLM, Step } from '@aphrodite/layers'
import type { Device, Tensor } from '@aphrodite/tensor'
import { withLogitRows } from './batch.ts'
import { HostStaging } from './host-staging.ts'
import { logprobAt } from './logprobs.ts'
import type { Request, Sequence } from './sequence.ts'

/**
 * Logits and log-probabilities of prompt tokens, for the requests that ask for them. Row p of a prompt is what the model
 * says after token p, so it holds the log-probability of token p + 1. [promptTokens, vocab] may be large: it is made a few
 * rows at a time.
 */
export class PromptRows {
  readonly #model: CausalLM
  readonly #device: Device
  readonly #chunkRows: number
  readonly #staging = new HostStaging(new Int32Array(256))

  constructor(model: CausalLM, device: Device, chunkRows: number) {
    this.#model = model
    this.#device = device
    this.#chunkRows = chunkRows
  }

  /** Waits for the device where there is something to do. */
  compute(hidden: Tensor, step: Step, batch: readonly Sequence[]): void {
    let flat = 0
    for (const s of batch) {
      const { request } = s
      if (s.index === 0 && request.needsPromptRows) {
        const end = Math.min(s.computed + s.scheduled, request.promptRows)
        for (let p = Math.max(s.computed, request.promptRowsDone); p < end; ) {
          const rows = Math.min(this.#chunkRows, end - p)
          this.#chunk(hidden, step, request, p, rows, flat + p - s.computed)
          p += rows
          request.promptRowsDone = p
        }
      }
      flat += s.scheduled
    }
  }

  #chunk(hidden: Tensor, step: Step, request: Request, position: number, rows: number, flat: number): void {
    const { workspace } = step
    const { prompt } = request
    workspace.tidy(workspace.empty([1], 'i32'), (marker) => {
      const staging = this.#staging
      staging.begin()
      const logitRows = staging.section(rows)
      const chosen = staging.section(rows)
      for (let i = 0; i < rows; i++) {
        staging.data[logitRows + i] = flat + i
        staging.data[chosen + i] = prompt[position + i + 1] ?? 0
      }
      staging.upload(workspace, this.#device)
      const logits = this.#model.logits(hidden, withLogitRows(step, staging.vector(logitRows, rows)))
      request.logits?.set(this.#device.download(logits), position * this.#model.vocabSize)

      const predicting = Math.min(rows, prompt.length - 1 - position)
      if (request.promptLogprobs && predicting > 0) {
        const n = request.plan.promptLogprobs
        const values = workspace.empty([predicting, n + 1], 'f32')
        const ids = workspace.empty([predicting, n + 1], 'i32')
        const ranks = workspace.empty([predicting], 'i32')
        logits.kernels.logProbs(values, ids, ranks, logits.narrow(0, 0, predicting), staging.vector(chosen, predicting))
        const [v, t, r] = [this.#device.download(values), this.#device.download(ids), this.#device.download(ranks)]
        for (let i = 0; i < predicting; i++) request.promptLogprobs.push(logprobAt(v, t, r, i, n + 1, n))
      }
      return marker
    })
  }
}
