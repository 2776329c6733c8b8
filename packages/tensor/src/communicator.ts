import type { Tensor } from './tensor.ts'

/** How long a collective waits for the other ranks when nobody says otherwise. */
export const COLLECTIVE_TIMEOUT_MS = 30_000

/**
 * The ranks that hold one model together. Every rank calls the same operations in the same order, with the same shapes and
 * dtypes. Between `Device.capture`'s begin and end an operation is captured like a kernel, or throws. Sums have the same bits on
 * every rank and in every run: on the CPU they are made in float32, rank 0 first, on GPUs in NCCL's way.
 *
 * An operation throws RANK_FAILED, which names the rank, when another rank does not come within the time limit, ends, or
 * gave the communicator up; from then on every operation on every rank does. On an asynchronous device the error comes from
 * what waits for the step instead: `Reading.wait`, `Device.synchronize`, `Device.download`.
 */
export interface Communicator {
  readonly rank: number
  readonly size: number
  /**
   * Names it among the communicators of this process and its backend; 0: there is nothing to abort. A thread that runs a
   * collective can be blocked in it: others, and other worker threads, abort with the handle and the function
   * `abortCommunicator(handle, reason)` of the backend's package.
   */
  readonly handle: number
  /** Sums x over all ranks, in place. Floats; rows may be strided. */
  allReduce(x: Tensor): void
  /** out [rows, size · n]: x [rows, n] of every rank, side by side in the order of ranks. One dtype; rows may be strided. */
  allGather(out: Tensor, x: Tensor): void
  /**
   * Gives it up on every rank: every pending and later operation throws RANK_FAILED with this reason, a sentence like "rank 1
   * ended with status 137". The first reason stays. Does not throw and does not wait.
   */
  abort(reason: string): void
  /** This rank needs no more operations. Others that still wait for it get RANK_FAILED. Graphs that captured it are released first. */
  close(): void
}

/** One rank alone: nothing to exchange. */
export const singleRank: Communicator = {
  rank: 0,
  size: 1,
  handle: 0,
  allReduce() {},
  allGather(out, x) {
    if (out.address !== x.address) x.kernels.copy(out, x)
  },
  abort() {},
  close() {},
}
