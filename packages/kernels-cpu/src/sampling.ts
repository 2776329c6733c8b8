import { type Kernels, tensorError } from '@aphrodite/tensor'
import type { Native } from './native.ts'

const missing = (): never => {
  throw tensorError('UNSUPPORTED_OP', 'sampling is not there yet')
}
export const samplingOps = (_native: Native, _context: number): Pick<Kernels, 'penalize' | 'addSparse' | 'sample' | 'logProbs'> => ({
  penalize: missing,
  addSparse: missing,
  sample: missing,
  logProbs: missing,
})
