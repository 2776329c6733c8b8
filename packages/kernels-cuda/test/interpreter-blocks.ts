import type { PagedCache, Tensor } from '@aphrodite/tensor'
import type { InterpretedCall, Stretch } from '../src/interpreter.ts'
import { overlaps, regionOf } from '../src/regions.ts'

/** The least that a block of the interpreter does: a row of a product, the heads of one key in attention. */
interface Unit {
  readonly op: number
  /** Of the result: [from, to). */
  readonly from: number
  readonly to: number
  /** Units that have stored what this one waits for, and theirs, as bits. */
  before: bigint
}

/**
 * Looks for what could be written over while a slow block still has to read it, given only that a block waits for the elements
 * that it reads: what is left is in the order of time. The first such pair, for people; undefined: there is none.
 */
export function overtaken({ calls }: Stretch): string | undefined {
  const units: Unit[][] = []
  const all: Unit[] = []
  const bitOf = (u: Unit): bigint => 1n << BigInt(all.indexOf(u))
  for (const [op, call] of calls.entries()) {
    const own = unitsOf(op, call)
    for (const unit of own) {
      for (const { from, elements } of readsOf(call, unit))
        for (const source of units[from]!)
          if (source.from < elements[1] && elements[0] < source.to) unit.before |= source.before | bitOf(source)
    }
    units.push(own)
    all.push(...own)
    // Whoever stores must have seen all that this takes the place of.
    const holder = call.buffer === undefined ? -1 : lastIndex(calls.slice(0, op), (c) => c.buffer === call.buffer)
    const gone = holder < 0 ? [] : [holder, ...calls.flatMap((c, r) => (c.sources.some((s) => s.op === holder + 1) ? [r] : []))]
    for (const g of gone)
      for (const old of units[g] ?? [])
        if (own.some((u) => (u.before & bitOf(old)) === 0n))
          return `call ${op + 1} may write where call ${g + 1} is still reading or writing`
    if (call.stored)
      for (const [r, reader] of calls.slice(0, op).entries())
        for (const [n, operand] of operandsOf(reader).entries())
          if (reader.sources[n]!.op === 0 && overlaps(regionOf(operand), regionOf(call.call.args[0])))
            for (const old of units[r]!)
              if (own.some((u) => (u.before & bitOf(old)) === 0n))
                return `call ${op + 1} may store what call ${r + 1} still reads in memory`
  }
  return undefined
}

function unitsOf(op: number, { call }: InterpretedCall): Unit[] {
  const [out] = call.args
  const groups = call.op === 'fusedLinear' ? out.size : (call.args[4] as PagedCache).shape.kvHeads
  const each = out.size / groups
  return Array.from({ length: groups }, (_, g) => ({ op, from: g * each, to: (g + 1) * each, before: 0n }))
}

function operandsOf({ call }: InterpretedCall): Tensor[] {
  if (call.op === 'fusedAttention') return call.args.slice(1, 4) as Tensor[]
  const [out, x, , { residual }] = call.args
  return residual ? [x, out] : [x]
}

function readsOf(call: InterpretedCall, { from, to }: Unit): { from: number; elements: [number, number] }[] {
  return operandsOf(call).flatMap((operand, n) => {
    const { op, offset } = call.sources[n]!
    if (op === 0) return []
    const { size } = call.call.args[0]
    // Of an input all; of what is added to and of heads the unit's part.
    const [a, b] =
      call.call.op === 'fusedLinear' && n === 0 ? [0, operand.size] : [(from / size) * operand.size, (to / size) * operand.size]
    return [{ from: op - 1, elements: [offset + a, offset + b] as [number, number] }]
  })
}

const lastIndex = <T>(items: readonly T[], holds: (t: T) => boolean): number => {
  for (let i = items.length - 1; i >= 0; i--) if (holds(items[i]!)) return i
  return -1
}
