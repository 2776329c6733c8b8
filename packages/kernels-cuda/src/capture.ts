import type { Graph, Kernels, Tensor } from '@aphrodite/tensor'
import { kernelsCudaError } from './errors.ts'
import { fusedAttention, fusedAttentionFits, fusedRotaryWrite, fusedRotaryWriteFits, type NativeFusedAttention } from './fused-attention.ts'
import type { FusedFits } from './fused-kernels.ts'
import { fusedLinear, fusedLinearFits, type NativeFusedLinear } from './fused-linear.ts'
import { fusedNorms, fusedNormsFits, type NativeFusedNorms } from './fused-norms.ts'
import { fuse } from './fusion.ts'
import { type Entry, isSettled } from './fusion-list.ts'
import { type InterpreterFits, isWanted, stretchesOf } from './interpreter.ts'
import { interpreterFits, makeInterpreter, type NativeInterpreter } from './interpreter-call.ts'
import { Recorder } from './recorder.ts'
import type { Layout } from './step-accesses.ts'
import { type Collective, launch, type StepOps } from './step-list.ts'

export interface NativeCapture extends NativeFusedAttention, NativeFusedLinear, NativeFusedNorms, NativeInterpreter {
  /** Ops are captured instead of done from here … */
  beginCapture(context: number): void
  /** … to here. keep 1: the graph's handle; 0: it is thrown away. */
  endCapture(context: number, keep: number): number
  replay(context: number, graph: number): void
  releaseGraph(context: number, graph: number): void
}

/** Lists that the interpreter does, by the first of their entries; `to`: the entry behind the last. */
type Interpreted = ReadonlyMap<number, { readonly list: number; readonly to: number }>

/** A device's kernels, and its graphs: a step is written down, fused, and only then launched, into a graph of the device's stream. */
export class StepCapture {
  /** What the device shows: made at once, or a part of the step that is being captured. */
  readonly kernels: Kernels
  readonly fits: FusedFits
  /** Which fused calls of one sequence it can do in one kernel. */
  readonly interprets: InterpreterFits
  readonly #native: NativeCapture
  readonly #context: number
  readonly #layout: Layout
  readonly #recorder: Recorder
  readonly #ops: StepOps

  constructor(native: NativeCapture, context: number, immediate: Kernels, layout: Layout) {
    this.#native = native
    this.#context = context
    this.#layout = layout
    this.#recorder = new Recorder(immediate)
    this.kernels = this.#recorder.kernels
    this.#ops = {
      ...immediate,
      fusedLinear: (...call) => fusedLinear(native, context, ...call),
      fusedNorms: (...call) => fusedNorms(native, context, ...call),
      fusedAttention: (...call) => fusedAttention(native, context, false, ...call),
      fusedRotaryWrite: (...call) => fusedRotaryWrite(native, context, ...call),
      collective: (work) => work.launch(),
    }
    this.fits = nativeFits(native, context)
    this.interprets = interpreterFits(native, context)
  }

  /** What ranks exchange: at once, or a part of the step that is being captured. */
  collective(work: Collective): void {
    this.#recorder.collective(work)
  }

  /** Throws CAPTURING inside a capture: for what moves data to or from the host. */
  requireIdle(what: string): void {
    if (this.#recorder.recording)
      throw kernelsCudaError(
        'CAPTURING',
        `${what}: a step is being captured, which moves nothing to or from the host. Do it before or after.`,
      )
  }

  /** See `Device.capture`. */
  capture(enqueue: () => void): Graph {
    const native = this.#native
    const context = this.#context
    const { entries } = fuse(this.#recorder.record(enqueue), { fits: this.fits, layout: this.#layout })
    // What one kernel does of it: its lists are made now, since a capture moves nothing to the device.
    const lists = this.#interpreted(entries)
    const release = (): void => {
      for (const { list } of lists.values()) native.releaseInterpreter(context, list)
    }
    let graph: number
    try {
      graph = this.#launched(entries, lists)
    } catch (error) {
      release()
      throw error
    }
    return {
      replay: () => native.replay(context, graph),
      release: () => {
        native.releaseGraph(context, graph)
        release()
      },
    }
  }

  /** The handle of a graph of these entries. An unfinished one is thrown away when something throws. */
  #launched(entries: readonly Entry[], lists: Interpreted): number {
    const native = this.#native
    const context = this.#context
    native.beginCapture(context)
    try {
      for (let i = 0; i < entries.length; i++) {
        const { call } = entries[i]!
        const interpreted = lists.get(i)
        if (interpreted) {
          native.runInterpreter(context, interpreted.list)
          i = interpreted.to - 1
        } else if (call.op === 'fusedAttention')
          fusedAttention(native, context, isSettled(entries, i, call.args.slice(1, 4) as Tensor[]), ...call.args)
        else launch(this.#ops, call)
      }
    } catch (error) {
      native.endCapture(context, 0)
      throw error
    }
    return native.endCapture(context, 1)
  }

  /** The stretches that the interpreter does, by their first entry. */
  #interpreted(entries: readonly Entry[]): Interpreted {
    const lists = new Map<number, { list: number; to: number }>()
    if (!isWanted()) return lists
    for (const stretch of stretchesOf(entries, this.interprets)) {
      const list = makeInterpreter(this.#native, this.#context, stretch)
      if (list !== undefined) lists.set(stretch.from, { list, to: stretch.to })
    }
    return lists
  }
}

/** What the addon says to each question of the rules. */
export const nativeFits = (native: NativeFusedAttention & NativeFusedLinear, context: number): FusedFits => ({
  linear: (...call) => fusedLinearFits(native, context, ...call),
  norms: (...call) => fusedNormsFits(...call),
  attention: (...call) => fusedAttentionFits(native, context, ...call),
  rotaryWrite: (...call) => fusedRotaryWriteFits(...call),
})
