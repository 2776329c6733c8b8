import { attentionNumbers } from './fused-attention.ts'
import { linearNumbers } from './fused-linear.ts'
import type { InterpreterFits, Stretch } from './interpreter.ts'

/** What the addon exports for it: the context's handle, then numbers (`native/addon/interpreter_ops.cc`). */
export interface NativeInterpreter {
  /** Whether it has a case for a call: kind, then the call's numbers. */
  interpreterFits(context: number, ...numbers: number[]): boolean
  /** A list in device memory: its handle, 0 where it does not fit after all. Not while a step is captured. */
  makeInterpreter(context: number, calls: Float64Array, lastTag: number): number
  runInterpreter(context: number, list: number): void
  releaseInterpreter(context: number, list: number): void
}

const KIND = { fusedLinear: 0, fusedAttention: 1 } as const

const numbersOf = (call: Parameters<InterpreterFits>[0]): number[] =>
  call.op === 'fusedLinear' ? linearNumbers(...call.args) : attentionNumbers(true, ...call.args)

export const interpreterFits =
  (native: NativeInterpreter, context: number): InterpreterFits =>
  (call) =>
    native.interpreterFits(context, KIND[call.op], ...numbersOf(call))

/** The handle of a list of these calls; undefined where the addon has no room for it. */
export function makeInterpreter(native: NativeInterpreter, context: number, { calls }: Stretch, lastTag = 0): number | undefined {
  const all = calls.flatMap(({ call, sources, buffer, stored }) => {
    const numbers = numbersOf(call)
    const links = [0, 1, 2].flatMap((i) => [sources[i]?.op ?? 0, sources[i]?.offset ?? 0])
    return [KIND[call.op], ...links, buffer ?? -1, stored ? 1 : 0, numbers.length, ...numbers]
  })
  const handle = native.makeInterpreter(context, Float64Array.from(all), lastTag)
  return handle === 0 ? undefined : handle
}
