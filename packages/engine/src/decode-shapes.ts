import type { DecodeShape } from './batch.ts'

/** Rows of padded decode steps. Between them a step costs next to nothing more: its time is that of reading the weights. */
const FIRST = [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64]

/** The least number of rows, of few numbers, that so many sequences fit into; no more than `most`, which must hold them. */
export function paddedRows(sequences: number, most: number): number {
  const first = FIRST.find((rows) => rows >= sequences)
  const step = sequences <= 256 ? 16 : 64
  return Math.min(most, first ?? Math.ceil(sequences / step) * step)
}

/** Every shape that steps of up to `sequences` sequences are padded to: the greatest first, as their memory holds the others'. */
export function decodeShapes(sequences: readonly number[], columnsOf: (blocks: number) => number, mostBlocks: number): DecodeShape[] {
  const widths = new Set<number>()
  for (let blocks = 1; ; blocks *= 2) {
    widths.add(columnsOf(Math.min(blocks, mostBlocks)))
    if (blocks >= mostBlocks) break
  }
  return [...new Set(sequences)].sort((a, b) => b - a).flatMap((rows) => [...widths].map((columns) => ({ rows, columns })))
}
