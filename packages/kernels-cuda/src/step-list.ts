import type { Kernels, Tensor } from '@aphrodite/tensor'
import type { FusedOps } from './fused-kernels.ts'

/** Work that is no op of `Kernels`: what ranks exchange. Nothing is fused across it. */
export interface Collective {
  readonly name: string
  readonly reads: readonly Tensor[]
  readonly writes: readonly Tensor[]
  launch(): void
}

/** Everything that a step can consist of. */
export interface StepOps extends Kernels, FusedOps {
  collective(work: Collective): void
}
export type OpName = keyof StepOps

/**
 * A call of an op, written down. Its arguments are what the op takes, and all of it is plain data: the addresses repeat from
 * step to step, so the list of calls is the step.
 */
export type Call<K extends OpName = OpName> = {
  [Op in K]: { readonly op: Op; readonly args: Parameters<StepOps[Op]> }
}[K]

export const callOf = <K extends OpName>(op: K, ...args: Parameters<StepOps[K]>): Call<K> => ({ op, args }) as unknown as Call<K>

export function launch(ops: StepOps, { op, args }: Call): void {
  const enqueue = ops[op] as (...args: unknown[]) => void
  enqueue(...args)
}
