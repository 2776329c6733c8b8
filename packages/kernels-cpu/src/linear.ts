import type { Kernels } from '@aphrodite/tensor'
import type { Native } from './native.ts'

export function linearOps(_native: Native, _context: number): Pick<Kernels, 'linear' | 'embedding'> {
  return {
    linear() {
      throw new Error('linear')
    },
    embedding() {
      throw new Error('embedding')
    },
  }
}
