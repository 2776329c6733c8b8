import type { Tensor } from '../tensor.ts'
import { matrix } from './elementwise.ts'
import type { NativeOp } from './ops.ts'

/** What an addon exports for `collectiveOps`: the first number behind the context is the communicator's handle. */
export interface NativeCollectives {
  readonly allReduce: NativeOp
  readonly allGather: NativeOp
}

/** A communicator's operations on a device, by the handle that the device's addon gave it. */
export interface CollectiveOps {
  allReduce(communicator: number, x: Tensor): void
  allGather(communicator: number, out: Tensor, x: Tensor): void
}

/** See `Communicator`. Tensors of any rank: the rows are the first dimension, whose stride may be anything. */
export function collectiveOps(ops: NativeCollectives, context: number): CollectiveOps {
  return {
    allReduce(communicator, x) {
      ops.allReduce(context, communicator, ...matrix('allReduce', 'x', x))
    },
    allGather(communicator, out, x) {
      ops.allGather(context, communicator, ...matrix('allGather', 'out', out), ...matrix('allGather', 'x', x))
    },
  }
}
