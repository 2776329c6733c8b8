import type { Tensor } from '@aphrodite/tensor'
import { type Entry, isSettled } from './fusion-list.ts'
import { ByteSet, overlaps, type Region, regionOf } from './regions.ts'
import { changes } from './step-accesses.ts'
import type { Call } from './step-list.ts'

/** Where an operand comes from: an earlier op of the list (1 …), and the element of its result that it starts at; 0: memory. */
export interface Source {
  readonly op: number
  readonly offset: number
}
const MEMORY: Source = { op: 0, offset: 0 }

/** A call that the interpreter does, and how it hangs together with the others of its list. */
export interface InterpretedCall {
  readonly call: Call<'fusedLinear' | 'fusedAttention'>
  /** Of a linear: its input, and what it adds to; of attention: q, k and v. */
  readonly sources: readonly Source[]
  /** Of the list's buffers the one for its result; undefined: no later call of the list reads it. */
  readonly buffer: number | undefined
  /** Something else reads it, from memory. */
  readonly stored: boolean
}

/** Neighbouring calls of a step that one launch of the interpreter does. */
export interface Stretch {
  /** The first of its entries, and the one behind its last. */
  readonly from: number
  readonly to: number
  readonly calls: readonly InterpretedCall[]
}

/** Whether the interpreter has a case for a call. */
export type InterpreterFits = (call: Call<'fusedLinear' | 'fusedAttention'>) => boolean

/** Fewer calls are not worth a kernel that has every multiprocessor to itself. */
const LEAST_CALLS = 4

/**
 * The longest stretches of calls that the interpreter can do, attention among them. What such a call reads is what an earlier one
 * of its stretch made, or was in memory before; what it makes is stored in memory only where something else reads it.
 */
export function stretchesOf(entries: readonly Entry[], fits: InterpreterFits): Stretch[] {
  const found: Stretch[] = []
  const candidates = entries.map((entry, i) => candidateOf(entries, i, entry, fits))
  for (let from = 0; from < entries.length; ) {
    const stretch = candidates[from] ? stretchFrom(entries, candidates, from) : undefined
    if (stretch) found.push(stretch)
    from = stretch ? stretch.to : from + 1
  }
  return found
}

interface Candidate {
  readonly call: Call<'fusedLinear' | 'fusedAttention'>
  readonly out: Tensor
  readonly operands: readonly Tensor[]
}

/** Entry i if the interpreter can do it, and may read its weights, tables and cached tokens before anything before it is done. */
function candidateOf(entries: readonly Entry[], i: number, { call }: Entry, fits: InterpreterFits): Candidate | undefined {
  const made = asCandidate(call)
  if (!made || !fits(made.call)) return undefined
  const operands = made.operands.map(regionOf)
  if (operands.some((r) => r.rows !== 1) || regionOf(made.out).rows !== 1) return undefined
  return isSettled(entries, i, made.operands) ? made : undefined
}

function asCandidate(call: Call): Candidate | undefined {
  switch (call.op) {
    case 'linear': {
      const [out, x, weight, bias] = call.args
      return asCandidate({ op: 'fusedLinear', args: [out, x, weight, { bias }] })
    }
    case 'fusedLinear': {
      const [out, x, , { residual }] = call.args
      return { call, out, operands: residual ? [x, out] : [x] }
    }
    case 'fusedAttention': {
      const [out, q, k, v] = call.args
      return { call, out, operands: [q, k, v] }
    }
    default:
      return undefined
  }
}

function stretchFrom(entries: readonly Entry[], candidates: readonly (Candidate | undefined)[], from: number): Stretch | undefined {
  const sources: Source[][] = []
  let to = from
  for (; to < entries.length; to++) {
    const linked = candidates[to] && linksOf(entries, candidates as readonly Candidate[], from, to)
    if (!linked) break
    sources.push(linked)
  }
  // A shorter one may do where the whole would have to store what it still reads.
  for (; to - from >= LEAST_CALLS; to--) {
    const own = candidates.slice(from, to) as Candidate[]
    if (!own.some((c) => c.call.op === 'fusedAttention')) return undefined
    const stored = own.map((_, i) => isNeeded(entries, from + i, to))
    const seen = seenBy(own, sources)
    if (!storesSafely(entries, own, sources, stored, from, seen)) continue
    const buffers = buffersOf(own, sources, seen)
    return { from, to, calls: own.map(({ call }, i) => ({ call, sources: sources[i]!, buffer: buffers[i], stored: stored[i]! })) }
  }
  return undefined
}

/** Where the operands of entry i come from, in a stretch that starts at `from`. */
function linksOf(entries: readonly Entry[], candidates: readonly Candidate[], from: number, i: number): Source[] | undefined {
  const { call, operands } = candidates[i]!
  const links: Source[] = []
  for (const operand of operands) {
    const region = regionOf(operand)
    let j = i - 1
    while (j >= from && !changes(entries[j]!.extents, region)) j--
    if (j < from) {
      if (call.op === 'fusedAttention') return undefined
      links.push(MEMORY)
      continue
    }
    const { out } = candidates[j]!
    const offset = elementsInto(regionOf(out), region, out.dtype === operand.dtype ? regionOf(out).rowBytes / out.size : 0)
    if (offset === undefined) return undefined
    links.push({ op: j - from + 1, offset })
  }
  return links
}

/** Where `part` starts inside of `whole`, in elements of so many bytes; undefined: it is no part of it. */
function elementsInto(whole: Region, part: Region, bytes: number): number | undefined {
  const offset = part.start - whole.start
  return offset >= 0 && offset + part.rowBytes <= whole.rowBytes && offset % bytes === 0 ? offset / bytes : undefined
}

/** Whether anything but the entries up to `to` reads what entry i writes. */
function isNeeded(entries: readonly Entry[], i: number, to: number): boolean {
  const bytes = new ByteSet(entries[i]!.extents.writes)
  for (let j = i + 1; j < entries.length && !bytes.isEmpty; j++) {
    const { reads, writes } = entries[j]!.extents
    if (j >= to && reads.some((r) => bytes.overlaps(r))) return true
    for (const w of writes) bytes.subtract(w)
  }
  // Left to the end: it can be looked at, unless it lies in memory that was given back meanwhile.
  return entries[i]!.extents.writes.some((w) => bytes.overlaps(w) && w.block?.live !== false)
}

/**
 * Whether what is stored is not in the way: of one another, and of what calls read from memory. The one exception: an operand that
 * every block has read when a later result is stored, because that result depends on all of what the reading call made.
 */
function storesSafely(
  entries: readonly Entry[],
  own: readonly Candidate[],
  sources: readonly (readonly Source[])[],
  stored: readonly boolean[],
  from: number,
  seen: readonly ReadonlySet<number>[],
): boolean {
  const regions = own.flatMap(({ out }, i) => (stored[i] ? [{ i, region: regionOf(out) }] : []))
  if (regions.length === 0) return true
  if (regions.some((a, n) => regions.slice(n + 1).some((b) => overlaps(a.region, b.region)))) return false
  return own.every(({ operands }, reader) => {
    const { inputs, touches } = entries[from + reader]!.extents
    const isOperand = (r: Region): boolean => operands.some((t) => regionOf(t).start === r.start)
    const hit = (r: Region): boolean => regions.some((s) => overlaps(s.region, r))
    if ([...inputs.filter((r) => !isOperand(r)), ...touches].some(hit)) return false
    return operands.every((t, n) => {
      if (sources[reader]![n]!.op !== 0) return true
      return regions.every((s) => s.i === reader || !overlaps(s.region, regionOf(t)) || seen[s.i]!.has(reader))
    })
  })
}

/**
 * For each call those of which every result was there before any block stored a part of its own, so that whatever they read may be
 * written over. A block of a linear waits for all of its input; one of attention for its heads alone.
 */
function seenBy(own: readonly Candidate[], sources: readonly (readonly Source[])[]): ReadonlySet<number>[] {
  /** What was there once the whole result of a call is. */
  const whole: ReadonlySet<number>[] = []
  const part: ReadonlySet<number>[] = []
  for (const [i, { call, operands }] of own.entries()) {
    const isLinear = call.op === 'fusedLinear'
    const [all, one] = [new Set<number>(), new Set<number>()]
    // What a linear adds to is read by elements, and tells nothing of the rest.
    const unread = new Map<number, ByteSet>()
    for (const [n, { op }] of (isLinear ? sources[i]!.slice(0, 1) : sources[i]!).entries()) {
      if (op === 0) continue
      const rest = unread.get(op - 1) ?? new ByteSet([regionOf(own[op - 1]!.out)])
      rest.subtract(regionOf(operands[n]!))
      unread.set(op - 1, rest)
    }
    for (const [from, rest] of unread) {
      const complete = rest.isEmpty
      // Each row of a linear is there only once its input was; some heads of attention say nothing of the others.
      const before = own[from]!.call.op === 'fusedLinear' || complete ? whole[from]! : []
      for (const earlier of before) all.add(earlier)
      if (complete) all.add(from)
      if (!isLinear && own[from]!.call.op === 'fusedLinear') for (const earlier of whole[from]!) one.add(earlier)
    }
    whole.push(all)
    part.push(isLinear ? all : one)
  }
  return part
}

/** Few buffers stay in the cache between memory and multiprocessors: one is used again as soon as all have read what it held. */
function buffersOf(
  own: readonly Candidate[],
  sources: readonly (readonly Source[])[],
  seen: readonly ReadonlySet<number>[],
): (number | undefined)[] {
  const readers = own.map((_, i) => own.flatMap((_, r) => (sources[r]!.some(({ op }) => op === i + 1) ? [r] : [])))
  const holders: { last: number; readonly op: string; readonly size: number }[] = []
  return own.map(({ call, out }, i) => {
    if (readers[i]!.length === 0 && call.op === 'fusedLinear') return undefined
    const free = holders.findIndex(
      ({ last, op, size }) => op === call.op && size === out.size && [last, ...readers[last]!].every((r) => seen[i]!.has(r)),
    )
    if (free < 0) return holders.push({ last: i, op: call.op, size: out.size }) - 1
    holders[free]!.last = i
    return free
  })
}

/**
 * Whether it is to be used. Only where it is asked for: at contexts up to 256 tokens a graph of kernels was measured to be faster
 * by 3 to 9 %, at some thousands the interpreter by 1 to 13 % (`docs/interpreter.md`).
 */
export function isWanted(): boolean {
  const wanted = process.env['APHRODITE_INTERPRETER'] ?? ''
  return wanted !== '' && wanted !== '0'
}
