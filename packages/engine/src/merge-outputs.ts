import type { EngineOutput, TokenLogprob } from './protocol.ts'

/** An output that may still grow: its lists are its own. */
type Growing = Omit<EngineOutput, 'tokenIds' | 'logprobs'> & { tokenIds: number[]; logprobs?: TokenLogprob[] }

/** Outputs that nobody has fetched yet: one for each answer, however many tokens it gets. In the order of their first ones. */
export class PendingOutputs {
  readonly #outputs = new Map<string, Growing>()

  get size(): number {
    return this.#outputs.size
  }

  has(requestId: string, index: number): boolean {
    return this.#outputs.has(keyOf(requestId, index))
  }

  add(output: EngineOutput): void {
    const key = keyOf(output.requestId, output.index)
    const earlier = this.#outputs.get(key)
    this.#outputs.set(key, earlier ? grown(earlier, output) : copied(output))
  }

  /** The first one; undefined when there is none. */
  shift(): EngineOutput | undefined {
    for (const [key, output] of this.#outputs) {
      this.#outputs.delete(key)
      return output
    }
    return undefined
  }

  takeAll(): EngineOutput[] {
    const all = [...this.#outputs.values()]
    this.#outputs.clear()
    return all
  }
}

const keyOf = (requestId: string, index: number): string => `${index}:${requestId}`

const copied = (output: EngineOutput): Growing => {
  const { tokenIds, logprobs, ...rest } = output
  return { ...rest, tokenIds: [...tokenIds], ...(logprobs ? { logprobs: [...logprobs] } : {}) }
}

/** What is said once, with the first output or the last, stays; tokens are added to the list that is there. */
function grown(earlier: Growing, output: EngineOutput): Growing {
  const { tokenIds, logprobs, ...rest } = output
  earlier.tokenIds.push(...tokenIds)
  if (logprobs) {
    earlier.logprobs ??= []
    earlier.logprobs.push(...logprobs)
  }
  return Object.assign(earlier, rest)
}
