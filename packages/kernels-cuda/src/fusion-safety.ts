import type { Entry } from './fusion-list.ts'
import { ByteSet, isSameRegion, overlaps, type Region } from './regions.ts'
import { changes } from './step-accesses.ts'

/** Calls that stand for others: those at `removed` go, each of `added` comes to the place of one of them. */
export interface Exchange {
  /** In rising order. */
  readonly removed: readonly number[]
  /** In rising order; several at one place are done in this order. */
  readonly added: readonly { readonly at: number; readonly entry: Entry }[]
  /** What removed calls write and leave as it was: by adding zero. */
  readonly unchanged: readonly Region[]
}

/**
 * Whether every other call, and everybody after the step, reads the same bytes after the exchange as before, given that the
 * added calls compute from the same inputs what the removed ones leave behind. So a rule has to know what ops mean, and
 * nothing about who else uses their tensors, or when.
 */
export function isSafe(entries: readonly Entry[], exchange: Exchange): boolean {
  const { removed, added } = exchange
  const first = removed[0]!
  const last = removed[removed.length - 1]!
  for (let i = first; i <= last; i++) if (entries[i]!.call.op === 'collective') return false
  for (const [n, { at, entry }] of added.entries()) {
    if (!removed.includes(at) || overlapsItself(entry)) return false
    if (!inputsHold(entries, exchange, n) || !resultsHold(entries, exchange, n)) return false
  }
  return nobodyMisses(entries, exchange)
}

/** A fused kernel has read all of its inputs only when it has written a part of its results. Ops of their own may work in place. */
function overlapsItself({ call, extents }: Entry): boolean {
  if (!call.op.startsWith('fused')) return false
  const { inputs, writes, touches } = extents
  return [...writes, ...touches].some((w, i, all) => inputs.some((r) => overlaps(w, r)) || all.some((o, j) => j > i && overlaps(w, o)))
}

/** What added call n reads is still, at its new place, what the removed calls read. */
function inputsHold(entries: readonly Entry[], { removed, added }: Exchange, n: number): boolean {
  const { at, entry } = added[n]!
  return entry.extents.reads.every((read) => {
    const source = removed.find((r) => r <= at && entries[r]!.extents.reads.some((x) => overlaps(x, read))) ?? removed[0]!
    for (let i = source + 1; i < at; i++) if (!removed.includes(i) && changes(entries[i]!.extents, read)) return false
    const before = added.slice(0, n)
    if (before.some((a) => a.at >= source && a.at < at && changes(a.entry.extents, read))) return false
    // A result of a removed call has to come from an added one.
    return removed.every(
      (r) => r >= source || !changes(entries[r]!.extents, read) || before.some((a) => a.at >= r && changes(a.entry.extents, read)),
    )
  })
}

/** Added call n writes what removed ones wrote, and nobody else wrote it since. */
function resultsHold(entries: readonly Entry[], { removed, added }: Exchange, n: number): boolean {
  const { at, entry } = added[n]!
  return [...entry.extents.writes, ...entry.extents.touches].every((result) => {
    const sources = removed.filter((r) => r <= at && changes(entries[r]!.extents, result))
    const rest = new ByteSet([result])
    for (const r of sources) for (const w of changedBy(entries[r]!)) rest.subtract(w)
    if (!rest.isEmpty) return false
    for (let i = sources[0]! + 1; i < at; i++) if (!removed.includes(i) && changes(entries[i]!.extents, result)) return false
    return true
  })
}

/** Bytes that the removed calls wrote and the added ones do not, or only later, are read by nobody meanwhile. */
function nobodyMisses(entries: readonly Entry[], { removed, added, unchanged }: Exchange): boolean {
  const stale = new ByteSet()
  const last = removed[removed.length - 1]!
  for (let i = removed[0]!; i < entries.length && !(i > last && stale.isEmpty); i++) {
    const entry = entries[i]!
    if (removed.includes(i)) {
      for (const w of changedBy(entry)) if (!unchanged.some((u) => isSameRegion(u, w))) stale.add(w)
      for (const a of added) if (a.at === i) for (const w of changedBy(a.entry)) stale.subtract(w)
    } else {
      if (entry.extents.reads.some((r) => stale.overlaps(r))) return false
      for (const w of entry.extents.writes) stale.subtract(w)
    }
  }
  if (stale.isEmpty) return true
  // Left to the end: only in memory that was given back meanwhile, where nobody may look.
  return removed.every((r) => changedBy(entries[r]!).every((w) => !stale.overlaps(w) || w.block?.live === false))
}

const changedBy = ({ extents }: Entry): readonly Region[] =>
  extents.touches.length ? [...extents.writes, ...extents.touches] : extents.writes
