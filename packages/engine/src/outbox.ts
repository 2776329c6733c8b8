import { PendingOutputs } from './merge-outputs.ts'
import type { EngineFailure, EngineOutput, EngineRequest } from './protocol.ts'

/** Numbers of a token in a message: its request's number, the answer, the id. */
export const TOKEN_WORDS = 3

/**
 * What the front is to be told. Almost all of it is one more token of some answer: these go as numbers in one array, since
 * hundreds of objects a step would take longer to copy to another thread than all the rest that the engine does.
 */
export class Outbox {
  readonly #requests = new Map<string, { readonly number: number; unfinished: number }>()
  #tokens = new Int32Array(256 * TOKEN_WORDS)
  #used = 0
  readonly #outputs = new PendingOutputs()
  #failures: EngineFailure[] = []

  get isEmpty(): boolean {
    return this.#used === 0 && this.#outputs.size === 0 && this.#failures.length === 0
  }

  /** A request begins, under the number that the front gave it. */
  open(request: EngineRequest, number: number): void {
    if (typeof request?.id === 'string')
      this.#requests.set(request.id, { number, unfinished: request.returnLogits ? 1 : (request.params?.n ?? 1) })
  }

  add(output: EngineOutput): void {
    const request = this.#requests.get(output.requestId)
    if (request && this.#plain(output)) {
      if (this.#used === this.#tokens.length) {
        const larger = new Int32Array(this.#used * 2)
        larger.set(this.#tokens)
        this.#tokens = larger
      }
      this.#tokens[this.#used] = request.number
      this.#tokens[this.#used + 1] = output.index
      this.#tokens[this.#used + 2] = output.tokenIds[0]!
      this.#used += TOKEN_WORDS
      return
    }
    this.#outputs.add(output)
    if (request && output.finishReason !== null && --request.unfinished === 0) this.#requests.delete(output.requestId)
  }

  fail(failure: EngineFailure): void {
    this.#requests.delete(failure.requestId)
    this.#failures.push(failure)
  }

  /** Everything, to be read in this order. */
  take(): { tokens: Int32Array; outputs: EngineOutput[]; failures: EngineFailure[] } {
    const tokens = this.#tokens.slice(0, this.#used)
    const failures = this.#failures
    this.#used = 0
    this.#failures = []
    return { tokens, outputs: this.#outputs.takeAll(), failures }
  }

  /** Whether it says nothing but a token, and nothing else of its answer is to be read after the tokens. */
  #plain({ requestId, index, tokenIds, finishReason, logprobs, cachedTokens }: EngineOutput): boolean {
    // cachedTokens goes with the first output, as everything does that concerns the prompt.
    if (finishReason !== null || tokenIds.length !== 1 || logprobs || cachedTokens !== undefined) return false
    return this.#outputs.size === 0 || !this.#outputs.has(requestId, index)
  }
}
