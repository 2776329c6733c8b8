import type { Kernels } from '../kernels.ts'
import { attentionOps } from './attention.ts'
import { elementwiseOps } from './elementwise.ts'
import { linearOps } from './linear.ts'
import type { NativeOps } from './ops.ts'
import { samplingOps } from './sampling.ts'

/** Kernels whose ops are functions of a native addon: tensors cross as numbers, checked here for what numbers do not say. */
export function nativeKernels(ops: NativeOps, context: number): Kernels {
  return {
    ...linearOps(ops, context),
    ...attentionOps(ops, context),
    ...elementwiseOps(ops, context),
    ...samplingOps(ops, context),
  }
}
