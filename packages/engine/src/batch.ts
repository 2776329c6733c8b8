import type { AttentionMetadata, LayerCache, Step } from '@aphrodite/layers'
import { type Device, PAGE_TOKENS, type Tensor, type Workspace } from '@aphrodite/tensor'
import type { CacheGroup, PageTable, SlotTable } from './cache-groups.ts'
import { HostStaging } from './host-staging.ts'
import { blocksFor } from './paged-group.ts'
import type { Sequence } from './sequence.ts'

/** Page tables grow by so many columns at a time, so that most steps have the shape of the one before. */
const COLUMNS = 16

/**
 * Turns scheduled sequences into the tensors of a Step: a flat list of tokens, and for each cache group where they go and
 * what they look at. Everything is written into one host array and crosses to the device at once.
 */
export class BatchBuilder {
  readonly #device: Device
  readonly #groups: readonly CacheGroup[]
  readonly #kvCaches: readonly LayerCache[]
  readonly #maxColumns: number
  readonly #staging = new HostStaging(new Int32Array(4096))
  /** Start of each group's sections in the staging array. */
  readonly #starts: Int32Array

  constructor(device: Device, groups: readonly CacheGroup[], kvCaches: readonly LayerCache[], maxModelLen: number) {
    this.#device = device
    this.#groups = groups
    this.#kvCaches = kvCaches
    this.#maxColumns = blocksFor(maxModelLen)
    this.#starts = new Int32Array(groups.length * 2)
  }

  /**
   * rows: the flat tokens whose logits are wanted, in the order they are wanted in. Tensors are in the workspace until its
   * next reset.
   */
  build(batch: readonly Sequence[], rows: readonly number[], workspace: Workspace): Step {
    let tokens = 0
    let maxQueryLength = 0
    let maxContextLength = 0
    for (const s of batch) {
      tokens += s.scheduled
      maxQueryLength = Math.max(maxQueryLength, s.scheduled)
      maxContextLength = Math.max(maxContextLength, s.computed + s.scheduled)
    }
    const sequences = batch.length
    const columns = Math.min(this.#maxColumns, Math.ceil(blocksFor(maxContextLength) / COLUMNS) * COLUMNS)

    const staging = this.#staging
    staging.begin()
    const ids = staging.section(tokens)
    const positions = staging.section(tokens)
    const promptLengths = staging.section(tokens)
    const queryStarts = staging.section(sequences + 1)
    const contextLengths = staging.section(sequences)
    const logitRows = staging.section(rows.length)
    const starts = this.#starts
    for (const [g, group] of this.#groups.entries()) {
      starts[g * 2] = staging.section(group.kind === 'paged' ? tokens : sequences)
      starts[g * 2 + 1] = staging.section(group.kind === 'paged' ? sequences * columns : sequences)
    }

    const { data } = staging
    let flat = 0
    for (let i = 0; i < sequences; i++) {
      const s = batch[i]!
      data[queryStarts + i] = flat
      data[contextLengths + i] = s.computed + s.scheduled
      for (let t = 0; t < s.scheduled; t++) {
        data[ids + flat + t] = s.tokens[s.computed + t]!
        data[positions + flat + t] = s.computed + t
        data[promptLengths + flat + t] = s.promptLength
      }
      for (let g = 0; g < this.#groups.length; g++) {
        const a = starts[g * 2]!
        const b = starts[g * 2 + 1]!
        if (this.#groups[g]!.kind === 'paged') writePages(data, s, s.tables[g] as PageTable, a + flat, b + i * columns, columns)
        else {
          data[a + i] = (s.tables[g] as SlotTable).slot
          data[b + i] = s.computed === 0 ? 1 : 0
        }
      }
      flat += s.scheduled
    }
    data[queryStarts + sequences] = flat
    for (let r = 0; r < rows.length; r++) data[logitRows + r] = rows[r]!
    staging.upload(workspace, this.#device)

    const starting = staging.vector(queryStarts, sequences + 1)
    const contexts = staging.vector(contextLengths, sequences)
    const metadata = (group: CacheGroup, g: number): AttentionMetadata =>
      group.kind === 'paged'
        ? {
            kind: 'paged',
            slots: staging.vector(starts[g * 2]!, tokens),
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
      inputIds: staging.vector(ids, tokens),
      positions: staging.vector(positions, tokens),
      promptLengths: staging.vector(promptLengths, tokens),
      kvCaches: this.#kvCaches,
      attnMetadata: this.#groups.map(metadata),
      workspace,
      logitRows: staging.vector(logitRows, rows.length),
    }
  }
}

function writePages(data: Int32Array, s: Sequence, table: PageTable, slots: number, row: number, columns: number): void {
  const { pages, count } = table
  for (let t = 0; t < s.scheduled; t++) {
    const position = s.computed + t
    data[slots + t] = pages[Math.floor(position / PAGE_TOKENS)]! * PAGE_TOKENS + (position % PAGE_TOKENS)
  }
  for (let c = 0; c < count; c++) data[row + c] = pages[c]!
  data.fill(0, row + count, row + columns)
}

/** The same step with other logits rows. */
export const withLogitRows = (step: Step, logitRows: Tensor): Step => ({ ...step, logitRows })
