import type { Tensor } from '@aphrodite/tensor'
import type { FusedFits } from './fused-kernels.ts'
import { type Entry, FusionList } from './fusion-list.ts'
import { FUSION_RULES } from './fusion-rules.ts'
import { type Exchange, isSafe } from './fusion-safety.ts'
import { regionOf } from './regions.ts'
import type { Layout } from './step-accesses.ts'
import type { Call, OpName } from './step-list.ts'

/** One row of the table of what is fused. */
export interface FusionRule {
  /** Of three words or so, for people. */
  readonly name: string
  /** The ops that it replaces, in the order of a step; it is tried at each call of the one that `match` starts from. */
  readonly ops: readonly OpName[]
  readonly from: OpName
  /**
   * What stands for call i and others around it; undefined: not here. It knows what ops mean. That nobody else needs what
   * disappears, and that nothing moves past what it depends on, is checked for it (`isSafe`).
   */
  match(list: FusionList, i: number, fits: FusedFits): Replacement | undefined
}

export interface Replacement {
  readonly removed: readonly number[]
  readonly added: readonly { readonly at: number; readonly call: Call }[]
  /** What the removed calls write and leave as it was all the same: by adding zero. */
  readonly unchanged?: readonly Tensor[]
}

export interface FusionOptions {
  readonly fits: FusedFits
  readonly layout: Layout
  /** Default: all of them. */
  readonly rules?: readonly FusionRule[]
}

export interface FusedStep {
  readonly entries: readonly Entry[]
  /** How often each rule was applied, by its name. */
  readonly applied: ReadonlyMap<string, number>
}

/**
 * The list with every replacement that the rules find, whoever wrote the model. Each entry knows the rules that made it.
 * Blocks of the workspace have to be as they are at the end of the step: what is still live there may be read.
 */
export function fuse(calls: readonly Call[], { fits, layout, rules = FUSION_RULES }: FusionOptions): FusedStep {
  const applied = new Map<string, number>()
  const list = new FusionList(calls, layout)
  for (let changed = true; changed; ) {
    changed = false
    for (const rule of rules)
      for (let i = 0; i < list.entries.length; i++) {
        if (list.entries[i]!.call.op !== rule.from) continue
        const exchange = exchangeOf(list, rule, i, fits)
        if (!exchange || !isSafe(list.entries, exchange)) continue
        apply(list.entries, exchange)
        // What comes next has moved to the left of i at most by what went.
        i = Math.max(-1, exchange.removed[0]! - 1)
        applied.set(rule.name, (applied.get(rule.name) ?? 0) + 1)
        changed = true
      }
  }
  return { entries: list.entries, applied }
}

function exchangeOf(list: FusionList, rule: FusionRule, i: number, fits: FusedFits): Exchange | undefined {
  const found = rule.match(list, i, fits)
  if (!found) return undefined
  const removed = [...new Set(found.removed)].sort((a, b) => a - b)
  const before = removed.flatMap((r) => list.entries[r]!.rules)
  const names = before.includes(rule.name) ? before : [...before, rule.name]
  const added = found.added.map(({ at, call }) => ({ at, entry: list.entryOf(call, names) })).sort((a, b) => a.at - b.at)
  return { removed, added, unchanged: (found.unchanged ?? []).map(regionOf) }
}

function apply(entries: Entry[], { removed, added }: Exchange): void {
  for (let r = removed.length - 1; r >= 0; r--) {
    const at = removed[r]!
    entries.splice(at, 1, ...added.filter((a) => a.at === at).map((a) => a.entry))
  }
}
