import type { Step } from '@aphrodite/layers'
import type { Device, Tensor } from '@aphrodite/tensor'
import { HostStaging } from './host-staging.ts'
import type { Sequence } from './sequence.ts'

/** Changes logits before a token is drawn: penalties of what was said already, the request's bias, bans of early ends. */
export class LogitAdjuster {
  readonly #device: Device
  readonly #lastTokens: Tensor
  readonly #staging = new HostStaging()

  /** lastTokens: what was drawn last, where the host may not know it yet. */
  constructor(device: Device, lastTokens: Tensor) {
    this.#device = device
    this.#lastTokens = lastTokens
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
    const staging = this.#staging
    staging.begin()
    let prompts = 0
    let outputs = 0
    let unknown = false
    for (const s of rows) {
      prompts += s.request.plan.penalizesPrompt ? s.request.distinctPrompt.length : 0
      outputs += s.outputLength
      if (s.known < s.length) unknown = true
    }
    const promptOffsets = staging.section(n + 1)
    const outputOffsets = staging.section(n + 1)
    const promptIds = staging.section(prompts)
    const outputIds = staging.section(outputs)
    const sources = staging.section(unknown ? outputs : 0)
    const repetition = staging.section(n)
    const presence = staging.section(n)
    const frequency = staging.section(n)
    const { ints, floats } = staging
    if (unknown) ints.fill(-1, sources, sources + outputs)
    let p = 0
    let o = 0
    for (const [i, s] of rows.entries()) {
      const { params, penalizesPrompt } = s.request.plan
      if (penalizesPrompt) {
        ints.set(s.request.distinctPrompt, promptIds + p)
        p += s.request.distinctPrompt.length
      }
      ints.set(s.tokens.subarray(s.promptLength, s.length), outputIds + o)
      o += s.outputLength
      if (s.known < s.length) ints[sources + o - 1] = s.drawnRow
      ints[promptOffsets + i + 1] = p
      ints[outputOffsets + i + 1] = o
      floats[repetition + i] = params.repetitionPenalty
      floats[presence + i] = params.presencePenalty
      floats[frequency + i] = params.frequencyPenalty
    }
    ints[promptOffsets] = ints[outputOffsets] = 0
    staging.upload(step.workspace, this.#device)
    const output = staging.vector(outputIds, o)
    if (unknown) logits.kernels.feedTokens(output, this.#lastTokens, staging.vector(sources, o))
    logits.kernels.penalize(
      logits,
      {
        repetition: staging.vector(repetition, n, 'f32'),
        presence: staging.vector(presence, n, 'f32'),
        frequency: staging.vector(frequency, n, 'f32'),
      },
      {
        promptOffsets: staging.vector(promptOffsets, n + 1),
        promptIds: staging.vector(promptIds, p),
        outputOffsets: staging.vector(outputOffsets, n + 1),
        outputIds: output,
      },
    )
  }

  #addSparse(logits: Tensor, step: Step, rows: readonly Sequence[], entries: number): void {
    const staging = this.#staging
    staging.begin()
    const offsets = staging.section(rows.length + 1)
    const ids = staging.section(entries)
    const values = staging.section(entries)
    const { ints, floats } = staging
    let at = 0
    for (const [i, s] of rows.entries()) {
      ints[offsets + i] = at
      const { biasIds, biasValues, bannedIds } = s.request.plan
      ints.set(biasIds, ids + at)
      floats.set(biasValues, values + at)
      at += biasIds.length
      if (!bansEnds(s)) continue
      ints.set(bannedIds, ids + at)
      floats.fill(Number.NEGATIVE_INFINITY, values + at, values + at + bannedIds.length)
      at += bannedIds.length
    }
    ints[offsets + rows.length] = at
    staging.upload(step.workspace, this.#device)
    logits.kernels.addSparse(logits, staging.vector(offsets, rows.length + 1), staging.vector(ids, at), staging.vector(values, at, 'f32'))
  }
}

const bansEnds = (s: Sequence): boolean => s.outputLength < s.request.plan.params.minTokens
const sparseEntries = (s: Sequence): number => s.request.plan.biasIds.length + (bansEnds(s) ? s.request.plan.bannedIds.length : 0)
/** Entries that a row takes of the staging array: its history, its bias, its bans. */
export const adjustmentEntries = (s: Sequence): number => sparseEntries(s) + (s.request.plan.penalized ? s.length : 0)
