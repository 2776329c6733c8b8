import { Tensor } from '@aphrodite/tensor'
import { ByteSet, isSameRegion, isSameView, regionOf } from './regions.ts'
import { accessOf, changes, type Extents, extentsOf, type Layout } from './step-accesses.ts'
import type { Call, OpName } from './step-list.ts'

/** A call, its bytes, and the rules that made it. */
export interface Entry {
  readonly call: Call
  readonly extents: Extents
  readonly rules: readonly string[]
}

/** The calls of a step with what links them: who wrote what a call reads, who reads what it wrote. */
export class FusionList {
  readonly entries: Entry[]
  readonly #layout: Layout

  constructor(calls: readonly Call[], layout: Layout) {
    this.#layout = layout
    this.entries = calls.map((call) => this.entryOf(call, []))
  }

  entryOf(call: Call, rules: readonly string[]): Entry {
    return { call, extents: extentsOf(call, this.#layout), rules }
  }

  /** Call i if it is one of these ops. */
  at<K extends OpName>(i: number, ...ops: readonly K[]): Call<K> | undefined {
    const call = this.entries[i]?.call
    return call && (ops as readonly string[]).includes(call.op) ? (call as Call<K>) : undefined
  }

  /** The last call before i that changes any of x: if it wrote exactly x; otherwise -1. */
  producer(i: number, x: Tensor): number {
    const region = regionOf(x)
    let j = i - 1
    while (j >= 0 && !changes(this.entries[j]!.extents, region)) j--
    if (j < 0) return -1
    const { writes, updates } = accessOf(this.entries[j]!.call)
    const made = [...Object.values(writes ?? {}), ...Object.values(updates ?? {})]
    return made.some((t) => t instanceof Tensor && isSameView(t, x)) ? j : -1
  }

  /** The calls after i that read any of x before all of it is written again. */
  readers(i: number, x: Tensor): number[] {
    const bytes = new ByteSet([regionOf(x)])
    const found: number[] = []
    for (let j = i + 1; j < this.entries.length && !bytes.isEmpty; j++) {
      const { reads, writes } = this.entries[j]!.extents
      if (reads.some((r) => bytes.overlaps(r))) found.push(j)
      for (const w of writes) bytes.subtract(w)
    }
    return found
  }
}

/** Whether nothing in the step has changed, before entry i, what its call goes by beside these operands, nor its cache. */
export function isSettled(entries: readonly Entry[], i: number, operands: readonly Tensor[]): boolean {
  const { inputs, touches } = entries[i]!.extents
  const own = operands.map(regionOf)
  const before = [...inputs.filter((r) => !own.some((o) => isSameRegion(o, r))), ...touches]
  return entries.slice(0, i).every((earlier) => before.every((r) => !changes(earlier.extents, r)))
}
