import type { Tensor, Workspace } from '@aphrodite/tensor'
import type { AttentionMetadata, LayerCache } from './cache.ts'

/** What one forward pass is about: a flat batch of tokens of several sequences. Passed as an argument; there is no current step. */
export interface Step {
  /** i32 [tokens] */
  readonly inputIds: Tensor
  /** i32 [tokens] place of each token in its sequence, from 0. */
  readonly positions: Tensor
  /** i32 [tokens] length of the prompt of each token's sequence. LongRoPE and dynamic NTK choose their frequencies by it. */
  readonly promptLengths: Tensor
  /** One for each layer that declares a cache, in tree order. */
  readonly kvCaches: readonly LayerCache[]
  /** One for each cache group. */
  readonly attnMetadata: readonly AttentionMetadata[]
  readonly workspace: Workspace
  /** i32 [rows] the tokens whose logits are asked for. */
  readonly logitRows: Tensor
}
