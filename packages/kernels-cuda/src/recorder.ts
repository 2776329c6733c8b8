import type { Kernels } from '@aphrodite/tensor'
import { kernelsCudaError } from './errors.ts'
import type { Call, Collective } from './step-list.ts'

/** The kernels that a device shows: calls are made at once, or written down while a step is recorded. */
export class Recorder {
  readonly kernels: Kernels
  #list: Call[] | undefined

  constructor(immediate: Kernels) {
    const names = Object.keys(immediate) as (keyof Kernels)[]
    const either = (op: keyof Kernels) => {
      const now = immediate[op] as (...args: unknown[]) => void
      return (...args: unknown[]): void => {
        if (this.#list) this.#list.push({ op, args } as unknown as Call)
        else now(...args)
      }
    }
    this.kernels = Object.fromEntries(names.map((op) => [op, either(op)])) as unknown as Kernels
  }

  get recording(): boolean {
    return this.#list !== undefined
  }

  /** What ranks exchange: at once, or its place in the list. */
  collective(work: Collective): void {
    if (this.#list) this.#list.push({ op: 'collective', args: [work] })
    else work.launch()
  }

  /** The calls that `enqueue` makes, none of which is done. Throws CAPTURING inside another recording. */
  record(enqueue: () => void): Call[] {
    if (this.#list) throw kernelsCudaError('CAPTURING', 'capture: a step is being captured already. Capture one after the other.')
    const list: Call[] = []
    this.#list = list
    try {
      enqueue()
    } finally {
      this.#list = undefined
    }
    return list
  }
}
