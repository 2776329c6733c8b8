import { ATTENTION_CASES } from './attention.ts'
import type { OpCase } from './case.ts'
import { ELEMENTWISE_CASES } from './elementwise.ts'
import { LINEAR_CASES } from './linear.ts'
import { NORM_CASES } from './norms.ts'
import { SAMPLING_CASES } from './sampling.ts'

/** Every op of `Kernels`, at sizes that are multiples of nothing too. Every backend runs all of them against the reference device. */
export const OP_CASES: readonly OpCase[] = [...LINEAR_CASES, ...NORM_CASES, ...ELEMENTWISE_CASES, ...ATTENTION_CASES, ...SAMPLING_CASES]
