import type { CausalLM, Step } from '@aphrodite/layers'
import type { Device, Reading, Tensor } from '@aphrodite/tensor'
import { withLogitRows } from './batch.ts'
import { HostStaging } from './host-staging.ts'
import { logprobAt } from './logprobs.ts'
import type { Request, Sequence } from './sequence.ts'

/** Rows of a prompt on their way to the host. */
export interface PendingPromptRows {
  readonly request: Request
  /** Place in the prompt of the first row. */
  readonly position: number
  /** f32 [rows, vocab] */
  readonly logits: Reading | undefined
  /** What Kernels.logProbs wrote for `rows` of them. */
  readonly rows: number
  readonly logprobs: readonly [values: Reading, ids: Reading, ranks: Reading] | undefined
}

/**
 * Logits and log-probabilities of prompt tokens, for the requests that ask for them. Row p of a prompt is what the model
 * says after token p, so it holds the log-probability of token p + 1. [promptTokens, vocab] may be large: it is made a few
 * rows at a time.
 */
export class PromptRows {
  readonly #model: CausalLM
  readonly #device: Device
  readonly #chunkRows: number
  readonly #staging = new HostStaging()

  constructor(model: CausalLM, device: Device, chunkRows: number) {
    this.#model = model
    this.#device = device
    this.#chunkRows = chunkRows
  }

  /** Enqueues what the batch asks for, and adds it to `pending`. */
  enqueue(hidden: Tensor, step: Step, batch: readonly Sequence[], pending: PendingPromptRows[]): void {
    let flat = 0
    for (const s of batch) {
      const { request } = s
      if (s.index === 0 && request.needsPromptRows) {
        const end = Math.min(s.computed + s.scheduled, request.promptRows)
        for (let p = Math.max(s.computed, request.promptRowsDone); p < end; ) {
          const rows = Math.min(this.#chunkRows, end - p)
          pending.push(this.#chunk(hidden, step, request, p, rows, flat + p - s.computed))
          p += rows
          request.promptRowsDone = p
        }
      }
      flat += s.scheduled
    }
  }

  #chunk(hidden: Tensor, step: Step, request: Request, position: number, rows: number, flat: number): PendingPromptRows {
    const { workspace } = step
    const { prompt } = request
    const read = (t: Tensor): Reading => this.#device.read(t)
    let logitsRead: Reading | undefined
    let logprobs: PendingPromptRows['logprobs']
    const predicting = request.promptLogprobs ? Math.max(0, Math.min(rows, prompt.length - 1 - position)) : 0
    workspace.tidy(workspace.empty([1], 'i32'), (marker) => {
      const staging = this.#staging
      staging.begin()
      const logitRows = staging.section(rows)
      const chosen = staging.section(rows)
      for (let i = 0; i < rows; i++) {
        staging.ints[logitRows + i] = flat + i
        staging.ints[chosen + i] = prompt[position + i + 1] ?? 0
      }
      staging.upload(workspace, this.#device)
      const logits = this.#model.logits(hidden, withLogitRows(step, staging.vector(logitRows, rows)))
      if (request.logits) logitsRead = read(logits)
      if (predicting > 0) {
        const n = request.plan.promptLogprobs
        const values = workspace.empty([predicting, n + 1], 'f32')
        const ids = workspace.empty([predicting, n + 1], 'i32')
        const ranks = workspace.empty([predicting], 'i32')
        logits.kernels.logProbs(values, ids, ranks, logits.narrow(0, 0, predicting), staging.vector(chosen, predicting))
        logprobs = [read(values), read(ids), read(ranks)]
      }
      return marker
    })
    return { request, position, logits: logitsRead, rows: predicting, logprobs }
  }
}

/** Gives requests the rows that were on their way, in their order. */
export async function collectPromptRows(pending: readonly PendingPromptRows[]): Promise<void> {
  const waits = pending.map(({ logits, logprobs = [] }) => Promise.all([logits?.wait(), ...logprobs.map((reading) => reading.wait())]))
  const arrived = await Promise.all(waits)
  for (const [i, { request, position, rows }] of pending.entries()) {
    const [logits, values, ids, ranks] = arrived[i]!
    if (logits) request.logits?.set(logits, position * (request.logits.length / request.prompt.length))
    const n = request.plan.promptLogprobs
    if (values && ids && ranks)
      for (let row = 0; row < rows; row++) request.promptLogprobs?.push(logprobAt(values, ids, ranks, row, n + 1, n))
  }
}
