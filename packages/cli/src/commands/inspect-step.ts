import type { StepReport } from '@aphrodite/llm'

/** The lines of `inspect --step`: the list of a decode step as a model enqueues it, as it is launched, and what made the difference. */
export function stepLines(report: StepReport): string[] {
  const { before, after, applied, batch, context } = report
  const width = Math.max(...[...before, ...after].map((c) => c.op.length))
  const rules = [...applied].map(([name, count]) => `${String(count).padStart(6)}  ${name}`)
  return [
    report.folder,
    '',
    `a decode step of ${batch} ${batch === 1 ? 'sequence' : 'sequences'}, ${context} tokens of context each, in ${report.dtype} on ${report.device}`,
    '',
    `as the model enqueues it: ${before.length} ops`,
    ...folded(before.map(({ op, operands }) => `${op.padEnd(width)}  ${operands}`)),
    '',
    `as it is launched: ${after.length} ops`,
    ...folded(
      after.map(
        ({ op, operands, rules }) =>
          `${op.padEnd(width)}  ${operands}${rules.length ? `\n${' '.repeat(width)}    by: ${rules.join('; ')}` : ''}`,
      ),
    ),
    '',
    'rules that were applied',
    ...(rules.length ? rules : ['  none']),
  ]
}

/** The longest period that is looked for: ops of a layer, or of a group of layers that differ. */
const MOST_PERIOD = 160

/** Layers that enqueue the same are printed once. */
function folded(lines: readonly string[]): string[] {
  const result: string[] = []
  for (let i = 0; i < lines.length; ) {
    const { period, times } = longestRepeat(lines, i)
    if (times > 1) result.push(`  ${times} ×`)
    for (const line of lines.slice(i, i + period)) result.push(...line.split('\n').map((l) => (times > 1 ? `    ${l}` : `  ${l}`)))
    i += period * times
  }
  return result
}

/** What repeats from line i on, and covers the most lines; a single line where nothing does. */
function longestRepeat(lines: readonly string[], i: number): { period: number; times: number } {
  let best = { period: 1, times: 1 }
  for (let period = 2; period <= Math.min(MOST_PERIOD, (lines.length - i) / 2); period++) {
    let times = 1
    while (lines.slice(i, i + period).every((line, j) => lines[i + times * period + j] === line)) times++
    if (times > 1 && period * times > best.period * best.times) best = { period, times }
  }
  return best
}
