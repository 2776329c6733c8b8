import type { AttentionMetadata, LayerCache, Step } from '@aphrodite/layers'
import { type Device, PAGE_TOKENS, type SamplingBatch, type Tensor, type Workspace } from '@aphrodite/tensor'
import type { CacheGroup, SlotTable } from './cache-groups.ts'
import { HostStaging } from './host-staging.ts'
import { PageRows } from './page-rows.ts'
import { blocksFor } from './paged-group.ts'
import type { Sequence } from './sequence.ts'
import type { StepShape } from './step-shapes.ts'

/** Page tables grow by so many columns at a time, so that most steps have the shape of the one before. */
const COLUMNS = 16

/** A step, and how its rows are drawn from. */
export interface BuiltStep {
  readonly step: Step
  /** One entry for each of step.logitRows. */
  readonly sampling: SamplingBatch
  /** i32 [tokens]: where a token that the host does not know lies among those drawn last; -1: it is in step.inputIds. */
  readonly sources: Tensor
  /** Whether any is unknown. */
  readonly feeds: boolean
  readonly columns: number
  readonly maxQueryLength: number
}

/**
 * Turns scheduled sequences into the tensors of a Step: a flat list of tokens, and for each cache group where they go and
 * what they look at. Everything is written into one host array and crosses to the device at once.
 */
export class BatchBuilder {
  readonly #device: Device
  readonly #groups: readonly CacheGroup[]
  readonly #kvCaches: readonly LayerCache[]
  readonly #maxColumns: number
  readonly #staging = new HostStaging(4096)
  /** Start of each group's sections in the staging array. */
  readonly #starts: Int32Array
  /** What stands in the page tables of each paged group. */
  readonly #pages: readonly PageRows[]

  constructor(device: Device, groups: readonly CacheGroup[], kvCaches: readonly LayerCache[], maxModelLen: number) {
    this.#device = device
    this.#groups = groups
    this.#kvCaches = kvCaches
    this.#maxColumns = blocksFor(maxModelLen)
    this.#starts = new Int32Array(groups.length * 2)
    this.#pages = groups.map((_, g) => new PageRows(g))
  }

  /** The columns that a step over `blocks` blocks gets: few widths, each of which holds for many steps. */
  columns(blocks: number, powersOfTwo: boolean): number {
    const wide = powersOfTwo ? 2 ** Math.ceil(Math.log2(Math.max(blocks, COLUMNS))) : Math.ceil(blocks / COLUMNS) * COLUMNS
    return Math.min(this.#maxColumns, wide)
  }

  /**
   * Row i of the logits is the one that drawing[i] draws from. With `shape`, which must hold the batch, tokens beyond it are token
   * 0 at position 0 of page 0 and slot 0, which are nobody's. Tensors are in the workspace until its next reset, at addresses that
   * follow from the counts of tokens, sequences, rows and columns.
   */
  build(batch: readonly Sequence[], drawing: readonly Sequence[], workspace: Workspace, shape?: StepShape): BuiltStep {
    let tokens = 0
    let maxQueryLength = 1
    let maxContextLength = 1
    for (let i = 0; i < batch.length; i++) {
      const s = batch[i]!
      const { scheduled } = s
      tokens += scheduled
      if (scheduled > maxQueryLength) maxQueryLength = scheduled
      if (s.computed + scheduled > maxContextLength) maxContextLength = s.computed + scheduled
    }
    if (shape) maxQueryLength = shape.maxQueryLength
    const flats = shape?.tokens ?? tokens
    const sequences = shape?.rows ?? batch.length
    const rows = shape?.rows ?? drawing.length
    const columns = shape?.columns ?? this.columns(blocksFor(maxContextLength), false)

    const staging = this.#staging
    staging.begin()
    const ids = staging.section(flats)
    const sources = staging.section(flats)
    const positions = staging.section(flats)
    const promptLengths = staging.section(flats)
    const queryStarts = staging.section(sequences + 1)
    const contextLengths = staging.section(sequences)
    const logitRows = staging.section(rows)
    // Vectors at multiples of ALIGNMENT.
    const stride = Math.ceil(rows / 64) * 64
    const sampling = staging.section(stride * 7)
    const starts = this.#starts
    for (let g = 0; g < this.#groups.length; g++) {
      const paged = this.#groups[g]!.kind === 'paged'
      starts[g * 2] = staging.section(paged ? flats : sequences)
      starts[g * 2 + 1] = staging.section(paged ? sequences * columns : sequences)
      this.#pages[g]!.place(starts[g * 2 + 1]!, columns)
    }

    const { ints } = staging
    let feeds = false
    let flat = 0
    for (let i = 0; i < batch.length; i++) {
      const s = batch[i]!
      const { computed, scheduled, tokens: all } = s
      ints[queryStarts + i] = flat
      ints[contextLengths + i] = computed + scheduled
      for (let t = 0; t < scheduled; t++) {
        const position = computed + t
        ints[ids + flat + t] = all[position]!
        ints[sources + flat + t] = -1
        ints[positions + flat + t] = position
        ints[promptLengths + flat + t] = s.promptLength
      }
      if (computed + scheduled > s.known) {
        ints[sources + flat + scheduled - 1] = s.drawnRow
        feeds = true
      }
      flat += scheduled
    }
    // Each sequence that pads the step gets one of the tokens that do, while there are any, and the first all that are too many.
    for (let i = batch.length, at = flat; i < sequences; i++) {
      const left = flats - at
      const own = Math.max(Math.min(left, 1), i === batch.length ? left - (sequences - i - 1) : 0)
      ints[queryStarts + i] = at
      ints[contextLengths + i] = Math.max(own, 1)
      at += own
    }
    for (; flat < flats; flat++) {
      ints[ids + flat] = ints[positions + flat] = 0
      ints[promptLengths + flat] = 1
      ints[sources + flat] = -1
    }
    ints[queryStarts + sequences] = flat
    for (let g = 0; g < this.#groups.length; g++) {
      if (this.#groups[g]!.kind === 'paged') this.#pages[g]!.write(ints, batch, sequences, starts[g * 2]!, flats)
      else writeSlots(ints, batch, g, sequences, starts[g * 2]!, starts[g * 2 + 1]!)
    }
    for (let r = 0; r < drawing.length; r++) ints[logitRows + r] = drawing[r]!.lastRow
    for (let r = drawing.length; r < rows; r++) ints[logitRows + r] = r
    writeSampling(staging, sampling, stride, drawing, rows)
    staging.upload(workspace, this.#device)

    const starting = staging.vector(queryStarts, sequences + 1)
    const contexts = staging.vector(contextLengths, sequences)
    const metadata = (group: CacheGroup, g: number): AttentionMetadata =>
      group.kind === 'paged'
        ? {
            kind: 'paged',
            slots: staging.vector(starts[g * 2]!, flats),
            queryStarts: starting,
            contextLengths: contexts,
            pageTables: staging.matrix(starts[g * 2 + 1]!, sequences, columns),
            maxQueryLength,
            // Up to the last column, so that a captured step stays right while its sequences grow into it.
            maxContextLength: columns * PAGE_TOKENS,
          }
        : {
            kind: 'state',
            slots: staging.vector(starts[g * 2]!, sequences),
            fresh: staging.vector(starts[g * 2 + 1]!, sequences),
            queryStarts: starting,
          }
    return {
      step: {
        inputIds: staging.vector(ids, flats),
        positions: staging.vector(positions, flats),
        promptLengths: staging.vector(promptLengths, flats),
        kvCaches: this.#kvCaches,
        attnMetadata: this.#groups.map(metadata),
        workspace,
        logitRows: staging.vector(logitRows, rows),
      },
      sampling: {
        temperature: staging.vector(sampling, rows, 'f32'),
        topP: staging.vector(sampling + stride, rows, 'f32'),
        minP: staging.vector(sampling + stride * 2, rows, 'f32'),
        topK: staging.vector(sampling + stride * 3, rows),
        seeds: staging.matrix(sampling + stride * 4, rows, 3),
      },
      sources: staging.vector(sources, flats),
      feeds,
      columns,
      maxQueryLength,
    }
  }
}

function writeSlots(ints: Int32Array, batch: readonly Sequence[], g: number, sequences: number, slots: number, fresh: number): void {
  for (let i = 0; i < sequences; i++) {
    const s = batch[i]
    ints[slots + i] = s ? (s.tables[g] as SlotTable).slot : 0
    ints[fresh + i] = !s || s.computed === 0 ? 1 : 0
  }
}

/** Rows that nobody draws from take the likeliest token, the cheapest. */
function writeSampling({ ints, floats }: HostStaging, at: number, stride: number, drawing: readonly Sequence[], rows: number): void {
  const [topP, minP, topK, seeds] = [at + stride, at + stride * 2, at + stride * 3, at + stride * 4]
  for (let r = 0; r < drawing.length; r++) {
    const s = drawing[r]!
    const { params } = s.request.plan
    floats[at + r] = params.temperature
    floats[topP + r] = params.topP
    floats[minP + r] = params.minP
    ints[topK + r] = params.topK
    ints[seeds + r * 3] = s.seedLow
    ints[seeds + r * 3 + 1] = s.seedHigh
    ints[seeds + r * 3 + 2] = s.length
  }
  for (let r = drawing.length; r < rows; r++) {
    floats[at + r] = floats[minP + r] = 0
    floats[topP + r] = 1
    ints[topK + r] = ints[seeds + r * 3] = ints[seeds + r * 3 + 1] = ints[seeds + r * 3 + 2] = 0
  }
}

/** The same step with other logits rows. */
export const withLogitRows = (step: Step, logitRows: Tensor): Step => ({ ...step, logitRows })
