import type { Kernels } from '@aphrodite/tensor'
import { attentionOps } from './attention.ts'
import { elementwiseOps } from './elementwise.ts'
import { linearOps } from './linear.ts'
import type { Native } from './native.ts'
import { samplingOps } from './sampling.ts'

export { pageBytes } from './attention.ts'

/** The ops of one context, from the files that hold them. */
export function createKernels(native: Native, context: number): Kernels {
  return {
    ...linearOps(native, context),
    ...attentionOps(native, context),
    ...elementwiseOps(native, context),
    ...samplingOps(native, context),
  }
}
