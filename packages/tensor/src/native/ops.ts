/** An op of a native addon: the context's handle, then numbers (`native/include/args.h`). Throws what it does not like. */
export type NativeOp = (context: number, ...numbers: number[]) => void

/** Every op of `Kernels`, by its name. */
const NATIVE_OPS = [
  'linear',
  'embedding',
  'gatherRows',
  'feedTokens',
  'rmsNorm',
  'addRmsNorm',
  'layerNorm',
  'add',
  'scale',
  'softCap',
  'activate',
  'activateAndMul',
  'copy',
  'fill',
  'rotary',
  'writeCache',
  'pagedAttention',
  'penalize',
  'addSparse',
  'sample',
  'logProbs',
] as const

/** What an addon exports for `nativeKernels`. */
export type NativeOps = Readonly<Record<(typeof NATIVE_OPS)[number], NativeOp>>

/** Ops that an addon should export and does not: it is older than this package. */
export const missingOps = (addon: object): string[] =>
  NATIVE_OPS.filter((name) => typeof (addon as Record<string, unknown>)[name] !== 'function')
