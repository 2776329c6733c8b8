import type { Tensor } from './tensor.ts'

/**
 * The ranks that hold one model together. Every rank calls the same operations in the same order. Between `Device.capture`'s
 * begin and end an operation is captured like a kernel, or throws.
 */
export interface Communicator {
  readonly rank: number
  readonly size: number
  /** Sums x over all ranks, in place. */
  allReduce(x: Tensor): void
  /** out [rows, size · n]: x [rows, n] of every rank, side by side in the order of ranks. */
  allGather(out: Tensor, x: Tensor): void
}

/** One rank alone: nothing to exchange. */
export const singleRank: Communicator = {
  rank: 0,
  size: 1,
  allReduce() {},
  allGather(out, x) {
    if (out.address !== x.address) x.kernels.copy(out, x)
  },
}
