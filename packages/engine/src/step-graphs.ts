import type { Device, Graph, Tensor } from '@aphrodite/tensor'
import type { BuiltStep } from './batch.ts'

interface Captured {
  readonly graph: Graph
  /** Undefined where the graph draws from them itself. */
  readonly logits: Tensor | undefined
}

/** What a graph ends with: logits for a sampler that does more than draw, or tokens. */
export type GraphEnd = 'logits' | 'tokens'

/**
 * Steps as graphs. The step of a batch whose tensors lie where those of an earlier one lay is the same ops on the same addresses:
 * it is captured when a shape is met for the second time, and replayed from then on, so that a step costs no walk through the
 * model. What is captured is what the model enqueues, whoever wrote it.
 */
export class StepGraphs {
  readonly #device: Device
  readonly #most: number
  readonly #enqueue: (built: BuiltStep, end: GraphEnd) => Tensor | undefined
  /** By shape, the least lately used first. `met`: once; `refused`: it could not be captured, though others could. */
  readonly #captured = new Map<string, Captured | 'met' | 'refused'>()
  #possible: boolean
  #succeeded = false

  /**
   * most: how many shapes are kept. enqueue: the ops of a step; the logits, if it is to end with them. Nothing but the step's own
   * tensors is in the workspace before.
   */
  constructor(device: Device, most: number, enqueue: (built: BuiltStep, end: GraphEnd) => Tensor | undefined) {
    this.#device = device
    this.#most = most
    this.#enqueue = enqueue
    this.#possible = device.capture !== undefined
  }

  get possible(): boolean {
    return this.#possible
  }

  /**
   * Whether the step was enqueued; it has to be walked through otherwise. logits: f32 [step.logitRows, vocab] in the step's
   * workspace, where it ends with them.
   */
  replay(built: BuiltStep, end: GraphEnd): { readonly logits: Tensor | undefined } | undefined {
    if (!this.#possible) return undefined
    const key = keyOf(built, end)
    const found = this.#captured.get(key)
    if (found === undefined) this.#remember(key, 'met')
    if (found === undefined || found === 'refused') return undefined
    const captured = found === 'met' ? this.#capture(built, end) : found
    if (!captured) return undefined
    this.#captured.delete(key)
    this.#remember(key, captured)
    captured.graph.replay()
    if (found === 'met' || !captured.logits) return captured
    return { logits: built.step.workspace.claim(captured.logits) }
  }

  /** Captures a step before its shape is met. False where it cannot be. */
  prepare(built: BuiltStep, end: GraphEnd): boolean {
    const captured = this.#possible ? this.#capture(built, end) : undefined
    if (captured) this.#remember(keyOf(built, end), captured)
    return captured !== undefined
  }

  release(): void {
    for (const captured of this.#captured.values()) releaseGraph(captured)
    this.#captured.clear()
  }

  #capture(built: BuiltStep, end: GraphEnd): Captured | undefined {
    let logits: Tensor | undefined
    try {
      const graph = this.#device.capture!(() => {
        logits = this.#enqueue(built, end)
      })
      this.#succeeded = true
      return { graph, logits }
    } catch {
      // Walking through the model always works, and says what is wrong where something is.
      if (this.#succeeded) {
        // Graphs take memory of the device: this one waits until those that are not used are gone.
        for (let i = Math.ceil(this.#captured.size / 2); i > 0; i--) this.#forgetOldest()
        this.#remember(keyOf(built, end), 'refused')
      } else {
        // A model that looks at numbers on the way, or calls what cannot be captured.
        this.#possible = false
        this.release()
      }
      return undefined
    }
  }

  #remember(key: string, captured: Captured | 'met' | 'refused'): void {
    this.#captured.set(key, captured)
    if (this.#captured.size > this.#most) this.#forgetOldest()
  }

  #forgetOldest(): void {
    const [oldest, dropped] = this.#captured.entries().next().value!
    this.#captured.delete(oldest)
    releaseGraph(dropped)
  }
}

function releaseGraph(captured: Captured | 'met' | 'refused'): void {
  if (typeof captured === 'object') captured.graph.release()
}

/** Where every tensor of such a step lies follows from its tokens, rows and columns, and from where the first one is. */
const keyOf = ({ step, columns, maxQueryLength }: BuiltStep, end: GraphEnd): string =>
  `${end} ${step.inputIds.address} ${step.inputIds.shape[0]} ${step.logitRows.shape[0]} ${columns} ${maxQueryLength}`
