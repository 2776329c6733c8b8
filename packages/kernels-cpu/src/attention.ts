import { type Kernels, type PageShape, tensorError } from '@aphrodite/tensor'
import type { Native } from './native.ts'

const missing = (): never => {
  throw tensorError('UNSUPPORTED_OP', 'attention is not there yet')
}
export const attentionOps = (_native: Native, _context: number): Pick<Kernels, 'rotary' | 'writeCache' | 'pagedAttention'> => ({
  rotary: missing,
  writeCache: missing,
  pagedAttention: missing,
})
export const pageBytes = (_shape: PageShape): number => missing()
