import { AphroditeError } from '@aphrodite/tensor'
import type { ConformanceRun } from '../verify-model.ts'

/** How far something is from what it should be; `where`: the first place beyond the limit, in words. */
export interface Difference {
  readonly error: number
  readonly where?: string
}

/** What has been run so far. A run that throws has not passed; the others go on. */
export class Runs {
  readonly all: ConformanceRun[] = []

  get problems(): string[] {
    return this.all.filter((r) => !r.passed).map((r) => `${r.name}${r.error === null ? '' : ` (against ${r.against})`}: ${r.note}`)
  }

  /** Returns whether it passed. */
  async compare(name: string, against: string, limit: number, run: () => Difference | Promise<Difference>): Promise<boolean> {
    try {
      const { error, where } = await run()
      const passed = error <= limit // NaN is not
      this.all.push({ name, against, limit, error, passed, ...(where !== undefined && { note: where }) })
      return passed
    } catch (e) {
      this.all.push({ name, against, limit, error: null, passed: false, note: reasonOf(e) })
      return false
    }
  }

  /** Something without which others cannot run: on record only when it throws. */
  async attempt<T>(name: string, run: () => T | Promise<T>): Promise<T | undefined> {
    try {
      return await run()
    } catch (e) {
      this.all.push({ name, against: '', limit: 0, error: null, passed: false, note: reasonOf(e) })
      return undefined
    }
  }

  /** Something that was left out, and why. */
  skip(name: string, why: string): void {
    this.all.push({ name, against: '', limit: 0, error: null, passed: true, note: `left out: ${why}` })
  }
}

const reasonOf = (e: unknown): string =>
  e instanceof AphroditeError ? `${e.code}: ${e.message}` : `it threw ${(e as Error)?.stack ?? String(e)}`

/** ‖x − y‖ / ‖y‖; 0 for the same bits. NaN, and rows of other lengths, are infinitely far. */
export function relativeError(x: Float32Array, y: Float32Array): number {
  if (x.length !== y.length) return Number.POSITIVE_INFINITY
  let difference = 0
  let size = 0
  for (let i = 0; i < y.length; i++) {
    difference += (x[i]! - y[i]!) ** 2
    size += y[i]! ** 2
  }
  if (difference === 0) return 0
  const error = Math.sqrt(difference / size)
  return Number.isNaN(error) ? Number.POSITIVE_INFINITY : error
}

/**
 * Logits of each prompt as one, for types that round: how much that hurts a position is luck, and a mistake is seen in the sum as well.
 */
export function differenceOfWhole(
  got: readonly (readonly Float32Array[])[],
  expected: readonly (readonly Float32Array[])[],
  limit: number,
): Difference {
  const errors = expected.map((rows, k) => relativeError(joined(got[k]!), joined(rows)))
  const error = Math.max(...errors)
  if (error <= limit) return { error }
  const k = errors.findIndex((e) => !(e <= limit))
  return { error, where: `the logits of prompt ${k} differ by ${errors[k]!.toExponential(1)} of their size; at most ${limit} is allowed` }
}

function joined(rows: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(rows.reduce((n, row) => n + row.length, 0))
  let at = 0
  for (const row of rows) {
    all.set(row, at)
    at += row.length
  }
  return all
}

/** Rows of logits of several prompts, of which `expected` may have the last ones alone. */
export function differenceOf(
  prompts: readonly (readonly number[])[],
  got: readonly (readonly Float32Array[])[],
  expected: readonly (readonly Float32Array[])[],
  limit: number,
): Difference {
  let error = 0
  let where: string | undefined
  for (const [k, rows] of expected.entries()) {
    const from = got[k]!.length - rows.length
    for (const [i, row] of rows.entries()) {
      const off = relativeError(got[k]![from + i] ?? new Float32Array(0), row)
      error = Math.max(error, off)
      if (off > limit)
        where ??= `its logits differ first at position ${from + i} of prompt ${k} (${prompts[k]!.length} tokens), by ${off.toExponential(1)} of their size; ${limit === 0 ? 'they should have the same bits' : `at most ${limit} is allowed`}`
    }
  }
  return { error, ...(where !== undefined && { where }) }
}
