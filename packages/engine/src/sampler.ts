import type { CausalLM, Step } from '@aphrodite/layers'
import type { Device, Reading, SamplingBatch, Tensor } from '@aphrodite/tensor'
import { type BuiltStep, withLogitRows } from './batch.ts'
import { adjustmentEntries, LogitAdjuster } from './logit-adjuster.ts'
import { logprobAt } from './logprobs.ts'
import type { Sequence } from './sequence.ts'

/** f32 [step.logitRows, vocab], enqueued. */
export type LogitsOf = (step: Step) => Tensor

/** Which rows of a step need what. */
export interface Arrangement {
  /** Rows [firstReported, endReported) report log-probabilities, rows from firstPenalized on have penalties. */
  readonly firstReported: number
  readonly firstPenalized: number
  readonly endReported: number
  /** Whether any row's logits are changed before it is drawn. */
  readonly adjusted: boolean
}

/** Log-probabilities on their way to the host: those of rows [first, end), `width` columns each. */
export interface PendingReports {
  readonly first: number
  readonly end: number
  readonly width: number
  readonly values: Reading
  readonly ids: Reading
  readonly ranks: Reading
}

/**
 * Draws a token for each row, by the parameters of the row's own request. Rows are put in an order in which those that need
 * penalties stand together, and those that report log-probabilities do: each kernel runs over a stretch of rows and no other.
 *
 *     | plain | log-probabilities | both | penalties |
 *
 * Log-probabilities are the model's own: before penalties, bias and temperature.
 */
export class Sampler {
  /** Rows of logits at a time. */
  readonly chunkRows: number
  /** The most entries of histories and biases at a time. */
  readonly #maxEntries: number
  readonly #device: Device
  readonly #adjuster: LogitAdjuster

  constructor(model: CausalLM, device: Device, lastTokens: Tensor, limits: { chunkRows: number; maxModelLen: number }) {
    this.#device = device
    this.#adjuster = new LogitAdjuster(device, lastTokens)
    this.chunkRows = limits.chunkRows
    this.#maxEntries = maxEntries(limits.maxModelLen, model.vocabSize)
  }

  /** Puts the sequences that draw in the order of their rows. */
  arrange(drawing: Sequence[]): Arrangement {
    let [plain, reported, both] = [0, 0, 0]
    let adjusted = false
    for (let i = 0; i < drawing.length; i++) {
      const at = place(drawing[i]!)
      if (at === 0) plain++
      else if (at === 1) reported++
      else if (at === 2) both++
      if (!adjusted && adjustmentEntries(drawing[i]!) > 0) adjusted = true
    }
    if (plain !== drawing.length) drawing.sort((a, b) => place(a) - place(b))
    return { firstReported: plain, firstPenalized: plain + reported, endReported: plain + reported + both, adjusted }
  }

  /** Whether `drawing` draws from all its rows at once, and from none of them twice: what a captured step can serve. */
  looksOnce(drawing: readonly Sequence[], { firstReported, endReported, adjusted }: Arrangement): boolean {
    return (endReported === firstReported || !adjusted) && this.#chunkEnd(drawing, 0, adjusted) === drawing.length
  }

  /**
   * Row i of step.logitRows is the one that drawing[i] draws from, into tokens i32 [drawing]. logitsOf: a step's logits, enqueued.
   * What is reported is on its way then.
   */
  enqueue(
    logitsOf: LogitsOf,
    built: BuiltStep,
    drawing: readonly Sequence[],
    arrangement: Arrangement,
    tokens: Tensor,
  ): PendingReports | undefined {
    const { workspace } = built.step
    const { firstReported: first, endReported: end } = arrangement
    let reports: Reports | undefined
    if (end > first) {
      let n = 0
      for (let i = first; i < end; i++) n = Math.max(n, drawing[i]!.request.plan.logprobs)
      reports = {
        values: workspace.empty([end - first, n + 1], 'f32'),
        ids: workspace.empty([end - first, n + 1], 'i32'),
        ranks: workspace.empty([end - first], 'i32'),
      }
    }
    for (let start = 0; start < drawing.length; ) {
      const stop = this.#chunkEnd(drawing, start, arrangement.adjusted)
      this.#drawChunk(logitsOf, built, drawing, { ...arrangement, tokens, reports }, start, stop)
      start = stop
    }
    if (!reports) return undefined
    const { values, ids, ranks } = reports
    const read = (t: Tensor): Reading => this.#device.read(t)
    return { first, end, width: values.lastDim, values: read(values), ids: read(ids), ranks: read(ranks) }
  }

  #chunkEnd(drawing: readonly Sequence[], start: number, adjusted: boolean): number {
    if (!adjusted) return Math.min(drawing.length, start + this.chunkRows)
    let entries = 0
    let end = start
    while (end < drawing.length && end - start < this.chunkRows) {
      entries += adjustmentEntries(drawing[end]!)
      if (entries > this.#maxEntries && end > start) break
      end++
    }
    return end
  }

  #drawChunk(logitsOf: LogitsOf, built: BuiltStep, drawing: readonly Sequence[], plan: Drawing, start: number, end: number): void {
    const { step, sampling } = built
    const { tokens, reports, firstReported, firstPenalized, endReported, adjusted } = plan
    const from = Math.max(start, firstReported)
    const to = Math.min(end, endReported)
    const report = (logits: Tensor, firstRow: number): void => {
      const { values, ids, ranks } = reports!
      const at = from - firstReported
      const n = to - from
      const rows = logits.narrow(0, from - firstRow, n)
      logits.kernels.logProbs(values.narrow(0, at, n), ids.narrow(0, at, n), ranks.narrow(0, at, n), rows, tokens.narrow(0, from, n))
    }
    let changed = false
    withLogits(logitsOf, step, start, end, drawing.length, (logits) => {
      const rows = drawing.length === end - start ? drawing : drawing.slice(start, end)
      if (adjusted) changed = this.#adjuster.apply(logits, step, rows, Math.max(0, firstPenalized - start))
      logits.kernels.sample(tokens.narrow(0, start, end - start), logits, narrowSampling(sampling, start, end - start))
      if (from < to && !changed) report(logits, start)
    })
    // The logits of before the changes, computed once more: their bits are the same, and a copy would double the workspace.
    if (from < to && changed) withLogits(logitsOf, step, from, to, drawing.length, (logits) => report(logits, from))
  }
}

interface Reports {
  readonly values: Tensor
  readonly ids: Tensor
  readonly ranks: Tensor
}

interface Drawing extends Arrangement {
  readonly tokens: Tensor
  readonly reports: Reports | undefined
}

/** Gives each sequence what it reports. */
export async function collectReports(reports: PendingReports | undefined, drawing: readonly Sequence[]): Promise<void> {
  if (!reports) return
  const { first, end, width } = reports
  const [values, ids, ranks] = await Promise.all([reports.values.wait(), reports.ids.wait(), reports.ranks.wait()])
  for (let i = first; i < end; i++)
    drawing[i]!.drawnLogprob = logprobAt(values, ids, ranks, i - first, width, drawing[i]!.request.plan.logprobs)
}

/** The logits of rows [start, end) of a step, for as long as they are used. */
function withLogits(logitsOf: LogitsOf, step: Step, start: number, end: number, all: number, use: (logits: Tensor) => void): void {
  const { workspace, logitRows } = step
  const n = end - start
  workspace.tidy(workspace.empty([1], 'i32'), (marker) => {
    const logits = logitsOf(n === all ? step : withLogitRows(step, logitRows.narrow(0, start, n)))
    // A step of whole rows makes those that pad it too.
    use(logits.dim(0) === n ? logits : logits.narrow(0, 0, n))
    return marker
  })
}

export const narrowSampling = ({ temperature, topK, topP, minP, seeds }: SamplingBatch, start: number, n: number): SamplingBatch => ({
  temperature: temperature.narrow(0, start, n),
  topK: topK.narrow(0, start, n),
  topP: topP.narrow(0, start, n),
  minP: minP.narrow(0, start, n),
  seeds: seeds.narrow(0, start, n),
})

/** A single row must fit: its history, a bias for every token, a ban of every token. */
const maxEntries = (maxModelLen: number, vocabSize: number): number => Math.max(1 << 16, maxModelLen + 2 * vocabSize)

/** What drawing takes of the workspace at most, beside logits: entries and where they come from, or entries and their values. */
export const samplerBytes = (rows: number, maxModelLen: number, vocabSize: number): number =>
  (maxEntries(maxModelLen, vocabSize) * 2 + rows * 80 + 64 * 32) * 4

/** The stretch of rows that a sequence belongs to. */
const place = (s: Sequence): number => {
  const { penalized, logprobs } = s.request.plan
  return logprobs < 0 ? (penalized ? 3 : 0) : penalized ? 2 : 1
}
