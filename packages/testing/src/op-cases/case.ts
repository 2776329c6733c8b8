import type { Device, DType, FloatDType, Kernels } from '@aphrodite/tensor'
import type { CaseMemory } from './memory.ts'

/** How far a result may lie from the reference: relative · |reference| + ofRms · (root mean square of the whole reference). */
export interface Tolerance {
  readonly relative: number
  readonly ofRms: number
  /** Why this much and not less. */
  readonly reason: string
}

/** One call of one op, with inputs that its name determines. */
export interface OpCase {
  readonly op: keyof Kernels
  /** Op, dtypes, shapes, strides, options: unique in the table. */
  readonly name: string
  readonly tolerance: Tolerance
  /** Fills inputs and outputs on a device and returns the call, which may be repeated for timing. */
  readonly prepare: (memory: CaseMemory, device: Device) => () => void
}

export const FLOATS: readonly FloatDType[] = ['f32', 'bf16', 'f16']

/** Half a step of rounding is 2^-24, 2^-11, 2^-8 of the value; two roundings that fall to different sides are twice that apart. */
const STEP: Readonly<Record<FloatDType, number>> = { f32: 2 ** -23, f16: 2 ** -10, bf16: 2 ** -7 }

/**
 * The tolerance of a result that is computed in f32 and rounded once to `dtype`. `steps`: how many roundings of f32 may add up
 * before. `ofRms`: for sums, whose error follows the size of their terms and not of their result.
 */
export function rounded(dtype: DType, steps: number, ofRms = 0): Tolerance {
  const step = STEP[dtype as FloatDType]
  const before = steps * STEP.f32
  return {
    relative: dtype === 'f32' ? before : step + before,
    ofRms,
    reason: `computed in f32 with about ${steps} roundings, then rounded to ${dtype}: one step to either side`,
  }
}

export const EXACT: Tolerance = { relative: 0, ofRms: 0, reason: 'moves or picks values, computes nothing' }

/** `bf16 [3, 17] stride 24` */
export const describeTensor = (dtype: DType, shape: readonly number[], stride?: number): string =>
  `${dtype} [${shape.join(', ')}]${stride === undefined ? '' : ` stride ${stride}`}`

/** Running totals from 0: where each list of these lengths begins in all of them joined. */
export function offsetsOf(lengths: readonly number[]): number[] {
  const offsets = [0]
  for (const n of lengths) offsets.push(offsets[offsets.length - 1]! + n)
  return offsets
}
