/** What a padded step is made for: as long as these are the same, all its tensors lie where they lay. */
export interface StepShape {
  /** Sequences, and rows of logits. */
  readonly rows: number
  readonly tokens: number
  /** Columns of the page tables. */
  readonly columns: number
  /** The most tokens of one sequence; 1: all decode. */
  readonly maxQueryLength: number
}

/** Rows of padded decode steps. Between them a step costs next to nothing more: its time is that of reading the weights. */
const FIRST = [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64]

/** Tokens of padded steps with prompts in them. Beyond the last, computing takes longer than walking through the model. */
const PROMPT_TOKENS = [16, 32, 64, 96, 128, 192, 256, 320, 384, 448, 512]

/** The least number of rows, of few numbers, that so many sequences fit into; no more than `most`, which must hold them. */
export function paddedRows(sequences: number, most: number): number {
  const first = FIRST.find((rows) => rows >= sequences)
  const step = sequences <= 256 ? 32 : 64
  return Math.min(most, first ?? Math.ceil(sequences / step) * step)
}

export const decodeShape = (rows: number, columns: number): StepShape => ({ rows, tokens: rows, columns, maxQueryLength: 1 })

/**
 * The shape of a step with prompts in it; undefined where there is none. What pads it belongs to sequences of nobody's, one at
 * least. columnsOf: the columns for a context of so many tokens.
 */
export function promptShape(
  step: { readonly sequences: number; readonly tokens: number; readonly longest: number },
  most: { readonly rows: number; readonly tokens: number },
  columnsOf: (context: number) => number,
): StepShape | undefined {
  const tokens = PROMPT_TOKENS.find((n) => n >= step.tokens)
  const rows = 2 ** Math.ceil(Math.log2(step.sequences + 1))
  if (tokens === undefined || tokens > most.tokens || rows > most.rows) return undefined
  return { rows, tokens, columns: columnsOf(Math.max(step.longest, tokens - step.tokens)), maxQueryLength: tokens }
}

/** Every shape that steps of up to `sequences` sequences are padded to: the greatest first, as their memory holds the others'. */
export function decodeShapes(sequences: readonly number[], columnsOf: (blocks: number) => number, mostBlocks: number): StepShape[] {
  const widths = new Set<number>()
  for (let blocks = 1; ; blocks *= 2) {
    widths.add(columnsOf(Math.min(blocks, mostBlocks)))
    if (blocks >= mostBlocks) break
  }
  return [...new Set(sequences)].sort((a, b) => b - a).flatMap((rows) => [...widths].map((columns) => decodeShape(rows, columns)))
}

/** The shapes of single prompts that are computed in one step, the greatest first. */
export function promptShapes(
  longest: number,
  most: { readonly rows: number; readonly tokens: number },
  columnsOf: (context: number) => number,
): StepShape[] {
  const lengths = PROMPT_TOKENS.filter((_, i) => longest > (PROMPT_TOKENS[i - 1] ?? 0)).map((n) => Math.min(n, longest))
  return lengths.reverse().flatMap((n) => promptShape({ sequences: 1, tokens: n, longest: n }, most, columnsOf) ?? [])
}
