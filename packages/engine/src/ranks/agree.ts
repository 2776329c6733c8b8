import type { EngineSizes } from '../prepare-memory.ts'

/** The sizes that every rank can have. They may differ where ranks hold different numbers of heads, or have less memory. */
export function leastSizes(all: readonly EngineSizes[]): EngineSizes {
  const [first] = all
  const least = (of: (sizes: EngineSizes) => number): number => Math.min(...all.map(of))
  return { blocks: (first?.blocks ?? []).map((_, group) => least((s) => s.blocks[group] ?? 0)), maxModelLen: least((s) => s.maxModelLen) }
}
