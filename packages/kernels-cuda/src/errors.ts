import { AphroditeError } from '@aphrodite/tensor'

/** The codes of `@aphrodite/kernels-cuda`. */
export const KERNELS_CUDA_ERRORS = ['NO_CUDA', 'CUDA_FAILED', 'BAD_CUDA_OPTION', 'NO_NCCL', 'CAPTURING'] as const
export type KernelsCudaErrorCode = (typeof KERNELS_CUDA_ERRORS)[number]
export const kernelsCudaError = (code: KernelsCudaErrorCode, message: string, options?: ErrorOptions): AphroditeError =>
  new AphroditeError(code, message, options)
