import type { CausalLM, Step } from '@aphrodite/layers'
import type { Device, Graph, Tensor } from '@aphrodite/tensor'

/** How many shapes of steps are kept. */
const MOST_GRAPHS = 64

interface Captured {
  readonly graph: Graph
  readonly logits: Tensor
}

/**
 * Decode steps as graphs. Forward and logits of a batch whose tensors lie where those of an earlier one lay are the same ops on
 * the same addresses: they are captured when a shape is met for the second time, and replayed from then on, so that a step
 * costs no walk through the model. What is captured is what the model enqueues, whoever wrote it.
 */
export class DecodeGraphs {
  readonly #model: CausalLM
  readonly #device: Device
  /** By shape, the least lately used first; null: met once. */
  readonly #captured = new Map<string, Captured | null>()
  #possible: boolean

  constructor(model: CausalLM, device: Device) {
    this.#model = model
    this.#device = device
    this.#possible = device.capture !== undefined
  }

  /**
   * f32 [step.logitRows, vocab] in the step's workspace, enqueued; undefined when the step has to be walked through. Nothing
   * but the step's own tensors may be in the workspace yet.
   */
  logits(step: Step): Tensor | undefined {
    if (!this.#possible) return undefined
    const key = shapeOf(step)
    const found = this.#captured.get(key)
    if (found === undefined) {
      this.#remember(key, null)
      return undefined
    }
    const captured = found ?? this.#capture(step)
    if (!captured) return undefined
    this.#captured.delete(key)
    this.#remember(key, captured)
    captured.graph.replay()
    return found ? step.workspace.claim(captured.logits) : captured.logits
  }

  release(): void {
    for (const captured of this.#captured.values()) captured?.graph.release()
    this.#captured.clear()
  }

  #capture(step: Step): Captured | undefined {
    let logits: Tensor | undefined
    try {
      const graph = this.#device.capture!(() => {
        logits = this.#model.logits(this.#model.forward(step), step)
      })
      return { graph, logits: logits! }
    } catch {
      // A model that looks at numbers on the way, or calls what cannot be captured: walking through it always works, and says
      // what is wrong where something is.
      this.#possible = false
      this.release()
      return undefined
    }
  }

  #remember(key: string, captured: Captured | null): void {
    this.#captured.set(key, captured)
    if (this.#captured.size <= MOST_GRAPHS) return
    const [oldest, dropped] = this.#captured.entries().next().value!
    this.#captured.delete(oldest)
    dropped?.graph.release()
  }
}

/** Where every tensor of a step lies follows from its counts of tokens, sequences and columns. */
function shapeOf({ inputIds, logitRows, attnMetadata }: Step): string {
  let key = `${inputIds.size} ${inputIds.address} ${logitRows.size} ${logitRows.address}`
  for (const m of attnMetadata) key += m.kind === 'paged' ? ` ${m.pageTables.address} ${m.pageTables.lastDim}` : ` ${m.slots.address}`
  return key
}
