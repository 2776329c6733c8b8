import type { CausalLM, Step } from '@aphrodite/layers'
import { Arena, type Device, type SamplingBatch, type Tensor } from '@aphrodite/tensor'
import { withLogitRows } from './batch.ts'
import { HostStaging } from './host-staging.ts'
import { adjustmentEntries, LogitAdjuster } from './logit-adjuster.ts'
import { logprobAt } from './logprobs.ts'
import type { Sequence } from './sequence.ts'

/** f32 [step.logitRows, vocab], enqueued. */
export type LogitsOf = (step: Step) => Tensor

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
  readonly #constants: Arena
  /** Parameters of rows that all take the most likely token. */
  readonly #greedy: SamplingBatch
  readonly #ints = new HostStaging(new Int32Array(1024))
  readonly #floats = new HostStaging(new Float32Array(1024))
  #firstReported = 0
  #firstPenalized = 0
  #endReported = 0
  #tokens: Tensor | undefined
  #reports: { values: Tensor; ids: Tensor; ranks: Tensor } | undefined

  constructor(model: CausalLM, device: Device, limits: { chunkRows: number; maxModelLen: number }) {
    this.#device = device
    this.#adjuster = new LogitAdjuster(device)
    this.chunkRows = limits.chunkRows
    this.#maxEntries = maxEntries(limits.maxModelLen, model.vocabSize)
    const rows = this.chunkRows
    this.#constants = new Arena(device, 1)
    const constant = (data: Float32Array | Int32Array, ...shape: number[]): Tensor => {
      const t = this.#constants.empty(shape, data instanceof Int32Array ? 'i32' : 'f32')
      device.upload(t, data)
      return t
    }
    this.#greedy = {
      temperature: constant(new Float32Array(rows), rows),
      topK: constant(new Int32Array(rows), rows),
      topP: constant(new Float32Array(rows).fill(1), rows),
      minP: constant(new Float32Array(rows), rows),
      seeds: constant(new Int32Array(rows * 3), rows, 3),
    }
  }

  release(): void {
    this.#constants.release()
  }

  /** Puts the sequences that draw in the order of their rows. */
  arrange(drawing: Sequence[]): void {
    const counts = [0, 0, 0, 0]
    for (const s of drawing) counts[place(s)]! += 1
    this.#firstReported = counts[0]!
    this.#firstPenalized = counts[0]! + counts[1]!
    this.#endReported = this.#firstPenalized + counts[2]!
    if (counts[0] !== drawing.length) drawing.sort((a, b) => place(a) - place(b))
  }

  /** Whether `drawing` draws from all its rows at once, and from none of them twice: what a captured step can serve. */
  looksOnce(drawing: readonly Sequence[]): boolean {
    if (this.#chunkEnd(drawing, 0) < drawing.length) return false
    return this.#endReported === this.#firstReported || drawing.every((s) => adjustmentEntries(s) === 0)
  }

  /** Row i of step.logitRows is the one that drawing[i] draws from. logitsOf: a step's logits, enqueued. */
  enqueue(logitsOf: LogitsOf, step: Step, drawing: readonly Sequence[]): void {
    this.#tokens = this.#reports = undefined
    if (drawing.length === 0) return
    const { workspace } = step
    const tokens = workspace.empty([drawing.length], 'i32')
    this.#tokens = tokens
    const reported = this.#endReported - this.#firstReported
    if (reported > 0) {
      let n = 0
      for (let i = this.#firstReported; i < this.#endReported; i++) n = Math.max(n, drawing[i]!.request.plan.logprobs)
      this.#reports = {
        values: workspace.empty([reported, n + 1], 'f32'),
        ids: workspace.empty([reported, n + 1], 'i32'),
        ranks: workspace.empty([reported], 'i32'),
      }
    }
    for (let start = 0; start < drawing.length; ) {
      const end = this.#chunkEnd(drawing, start)
      this.#drawChunk(logitsOf, step, drawing, start, end)
      start = end
    }
  }

  /** After the device is done: every sequence gets its token and what it reports. */
  collect(drawing: readonly Sequence[]): void {
    if (!this.#tokens) return
    const tokens = this.#device.download(this.#tokens)
    for (let i = 0; i < drawing.length; i++) drawing[i]!.drawn = tokens[i]!
    if (!this.#reports) return
    const width = this.#reports.values.lastDim
    const values = this.#device.download(this.#reports.values)
    const ids = this.#device.download(this.#reports.ids)
    const ranks = this.#device.download(this.#reports.ranks)
    for (let i = this.#firstReported; i < this.#endReported; i++) {
      const row = i - this.#firstReported
      drawing[i]!.drawnLogprob = logprobAt(values, ids, ranks, row, width, drawing[i]!.request.plan.logprobs)
    }
  }

  #chunkEnd(drawing: readonly Sequence[], start: number): number {
    let entries = 0
    let end = start
    while (end < drawing.length && end - start < this.chunkRows) {
      entries += adjustmentEntries(drawing[end]!)
      if (entries > this.#maxEntries && end > start) break
      end++
    }
    return end
  }

  #drawChunk(logitsOf: LogitsOf, step: Step, drawing: readonly Sequence[], start: number, end: number): void {
    const tokens = this.#tokens!
    const from = Math.max(start, this.#firstReported)
    const to = Math.min(end, this.#endReported)
    const report = (logits: Tensor, firstRow: number): void => {
      const { values, ids, ranks } = this.#reports!
      const at = from - this.#firstReported
      const n = to - from
      const rows = logits.narrow(0, from - firstRow, n)
      logits.kernels.logProbs(values.narrow(0, at, n), ids.narrow(0, at, n), ranks.narrow(0, at, n), rows, tokens.narrow(0, from, n))
    }
    let changed = false
    this.#withLogits(logitsOf, step, start, end, drawing.length, (logits) => {
      const rows = drawing.length === end - start ? drawing : drawing.slice(start, end)
      changed = this.#adjuster.apply(logits, step, rows, Math.max(0, this.#firstPenalized - start))
      logits.kernels.sample(tokens.narrow(0, start, end - start), logits, this.#parameters(step, rows))
      if (from < to && !changed) report(logits, start)
    })
    // The logits of before the changes, computed once more: their bits are the same, and a copy would double the workspace.
    if (from < to && changed) this.#withLogits(logitsOf, step, from, to, drawing.length, (logits) => report(logits, from))
  }

  #withLogits(logitsOf: LogitsOf, step: Step, start: number, end: number, all: number, use: (logits: Tensor) => void): void {
    const { workspace } = step
    workspace.tidy(workspace.empty([1], 'i32'), (marker) => {
      use(logitsOf(end - start === all ? step : withLogitRows(step, step.logitRows.narrow(0, start, end - start))))
      return marker
    })
  }

  #parameters(step: Step, rows: readonly Sequence[]): SamplingBatch {
    const n = rows.length
    if (rows.every((s) => s.request.plan.greedy)) {
      const { temperature, topK, topP, minP, seeds } = this.#greedy
      return {
        temperature: temperature.narrow(0, 0, n),
        topK: topK.narrow(0, 0, n),
        topP: topP.narrow(0, 0, n),
        minP: minP.narrow(0, 0, n),
        seeds: seeds.narrow(0, 0, n),
      }
    }
    const ints = this.#ints
    const floats = this.#floats
    ints.begin()
    floats.begin()
    const topK = ints.section(n)
    const seeds = ints.section(n * 3)
    const temperature = floats.section(n)
    const topP = floats.section(n)
    const minP = floats.section(n)
    for (let i = 0; i < n; i++) {
      const s = rows[i]!
      const { params } = s.request.plan
      floats.data[temperature + i] = params.temperature
      floats.data[topP + i] = params.topP
      floats.data[minP + i] = params.minP
      ints.data[topK + i] = params.topK
      ints.data[seeds + i * 3] = s.seedLow
      ints.data[seeds + i * 3 + 1] = s.seedHigh
      ints.data[seeds + i * 3 + 2] = s.length
    }
    ints.upload(step.workspace, this.#device)
    floats.upload(step.workspace, this.#device)
    return {
      temperature: floats.vector(temperature, n),
      topK: ints.vector(topK, n),
      topP: floats.vector(topP, n),
      minP: floats.vector(minP, n),
      seeds: ints.matrix(seeds, n, 3),
    }
  }
}

/** A single row must fit: its history, a bias for every token, a ban of every token. */
const maxEntries = (maxModelLen: number, vocabSize: number): number => Math.max(1 << 16, maxModelLen + 2 * vocabSize)

/** What drawing takes of the workspace at most, beside logits. */
export const samplerBytes = (rows: number, maxModelLen: number, vocabSize: number): number =>
  (maxEntries(maxModelLen, vocabSize) * 2 + rows * 80 + 64 * 32) * 4

/** The stretch of rows that a sequence belongs to. */
const place = (s: Sequence): number => {
  const { penalized, logprobs } = s.request.plan
  return logprobs < 0 ? (penalized ? 3 : 0) : penalized ? 2 : 1
}
