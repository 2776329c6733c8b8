import { AphroditeError } from '@aphrodite/tensor'

/** The codes of `@aphrodite/kernels-cpu`. */
export const KERNELS_CPU_ERRORS = ['NO_NATIVE_ADDON', 'BAD_OPTION', 'CANNOT_LISTEN'] as const
export type KernelsCpuErrorCode = (typeof KERNELS_CPU_ERRORS)[number]
export const kernelsCpuError = (code: KernelsCpuErrorCode, message: string, options?: ErrorOptions): AphroditeError =>
  new AphroditeError(code, message, options)
