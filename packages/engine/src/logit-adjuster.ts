import type { Step } from '@aphrodite/layers'
import type { Device, Tensor } from '@aphrodite/tensor'
import { HostStaging } from './host-staging.ts'
import type { Sequence } from './sequence.ts'

/** Changes logits before a token is drawn: penalties of what was said already, the request's bias, bans of early ends. */
export class LogitAdjuster {
  readonly #device: Device
  readonly #ints = new HostStaging(new Int32Array(1024))
  readonly #floats = new HostStaging(new Float32Array(1024))

  constructor(device: Device) {
    this.#device = device
  }

  /** In place on the logits of `rows`; those from `first` on have penalties. False if there was nothing to do. */
  apply(logits: Tensor, step: Step, rows: readonly Sequence[], first: number): boolean {
    const penalized = first < rows.length
    let sparse = 0
    for (const s of rows) sparse += sparseEntries(s)
    if (penalized) this.#penalize(logits.narrow(0, first, rows.length - first), step, rows.slice(first))
    if (sparse > 0) this.#addSparse(logits, step, rows, sparse)
    return penalized || sparse > 0
  }

  #penalize(logits: Tensor, step: Step, rows: readonly Sequence[]): void {
    const n = rows.length
    const ints = this.#ints
    const floats = this.#floats
    ints.begin()
    floats.begin()
    let prompts = 0
    let outputs = 0
    for (const s of rows) {
      prompts += s.request.plan.penalizesPrompt ? s.request.distinctPrompt.length : 0
      outputs += s.outputLength
    }
    const promptOffsets = ints.section(n + 1)
    const outputOffsets = ints.section(n + 1)
    const promptIds = ints.section(prompts)
    const outputIds = ints.section(outputs)
    const penalties = floats.section(n * 3)
    let p = 0
    let o = 0
    for (const [i, s] of rows.entries()) {
      const { params, penalizesPrompt } = s.request.plan
      if (penalizesPrompt) {
        ints.data.set(s.request.distinctPrompt, promptIds + p)
        p += s.request.distinctPrompt.length
      }
      ints.data.set(s.tokens.subarray(s.promptLength, s.length), outputIds + o)
      o += s.outputLength
      ints.data[promptOffsets + i + 1] = p
      ints.data[outputOffsets + i + 1] = o
      floats.data[penalties + i] = params.repetitionPenalty
      floats.data[penalties + n + i] = params.presencePenalty
      floats.data[penalties + n * 2 + i] = params.frequencyPenalty
    }
    ints.data[promptOffsets] = ints.data[outputOffsets] = 0
    ints.upload(step.workspace, this.#device)
    floats.upload(step.workspace, this.#device)
    logits.kernels.penalize(
      logits,
      {
        repetition: floats.vector(penalties, n),
        presence: floats.vector(penalties + n, n),
        frequency: floats.vector(penalties + n * 2, n),
      },
      {
        promptOffsets: ints.vector(promptOffsets, n + 1),
        promptIds: ints.vector(promptIds, p),
        outputOffsets: ints.vector(outputOffsets, n + 1),
        outputIds: ints.vector(outputIds, o),
      },
    )
  }

  #addSparse(logits: Tensor, step: Step, rows: readonly Sequence[], entries: number): void {
    const ints = this.#ints
    const floats = this.#floats
    ints.begin()
    floats.begin()
    const offsets = ints.section(rows.length + 1)
    const ids = ints.section(entries)
    const values = floats.section(entries)
    let at = 0
    for (const [i, s] of rows.entries()) {
      ints.data[offsets + i] = at
      const { biasIds, biasValues, bannedIds } = s.request.plan
      ints.data.set(biasIds, ids + at)
      floats.data.set(biasValues, values + at)
      at += biasIds.length
      if (!bansEnds(s)) continue
      ints.data.set(bannedIds, ids + at)
      floats.data.fill(Number.NEGATIVE_INFINITY, values + at, values + at + bannedIds.length)
      at += bannedIds.length
    }
    ints.data[offsets + rows.length] = at
    ints.upload(step.workspace, this.#device)
    floats.upload(step.workspace, this.#device)
    logits.kernels.addSparse(logits, ints.vector(offsets, rows.length + 1), ints.vector(ids, at), floats.vector(values, at))
  }
}

const bansEnds = (s: Sequence): boolean => s.outputLength < s.request.plan.params.minTokens
const sparseEntries = (s: Sequence): number => s.request.plan.biasIds.length + (bansEnds(s) ? s.request.plan.bannedIds.length : 0)
/** Entries that a row takes of the staging arrays: its history, its bias, its bans. */
export const adjustmentEntries = (s: Sequence): number => sparseEntries(s) + (s.request.plan.penalized ? s.length : 0)
