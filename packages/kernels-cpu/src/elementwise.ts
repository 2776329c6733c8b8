import { type Kernels, tensorError } from '@aphrodite/tensor'
import type { Native } from './native.ts'

const missing = (): never => {
  throw tensorError('UNSUPPORTED_OP', 'elementwise ops are not there yet')
}
export const elementwiseOps = (
  _native: Native,
  _context: number,
): Pick<
  Kernels,
  'gatherRows' | 'rmsNorm' | 'addRmsNorm' | 'layerNorm' | 'add' | 'scale' | 'softCap' | 'activate' | 'activateAndMul' | 'copy' | 'fill'
> => ({
  gatherRows: missing,
  rmsNorm: missing,
  addRmsNorm: missing,
  layerNorm: missing,
  add: missing,
  scale: missing,
  softCap: missing,
  activate: missing,
  activateAndMul: missing,
  copy: missing,
  fill: missing,
})
