import { PendingOutputs } from './merge-outputs.ts'
import type { EngineOutput } from './protocol.ts'

/**
 * The outputs of one request as they are asked for. What is not asked for is merged to one output an answer. Leaving the loop
 * early aborts the request.
 */
export class RequestStream implements AsyncIterableIterator<EngineOutput> {
  readonly #pending = new PendingOutputs()
  readonly #onReturn: () => void
  #open: number
  #error: Error | undefined
  #waiting: { resolve: (result: IteratorResult<EngineOutput>) => void; reject: (error: Error) => void }[] = []

  /** answers: how many finish reasons there will be. onReturn: the reader has lost interest. */
  constructor(answers: number, onReturn: () => void) {
    this.#open = answers
    this.#onReturn = onReturn
  }

  /** Whether every answer has its finish reason, or the request failed. */
  get ended(): boolean {
    return this.#open <= 0
  }

  push(output: EngineOutput): void {
    if (this.#open <= 0) return
    if (output.finishReason) this.#open--
    const reader = this.#waiting.shift()
    if (reader) reader.resolve({ done: false, value: output })
    else this.#pending.add(output)
    if (this.#open <= 0) for (const { resolve } of this.#waiting.splice(0)) resolve({ done: true, value: undefined })
  }

  /** What came before is still read; then the error is thrown, once. */
  fail(error: Error): void {
    if (this.#open <= 0) return
    this.#open = 0
    const [reader, ...others] = this.#waiting.splice(0)
    if (reader) reader.reject(error)
    else this.#error = error
    for (const { resolve } of others) resolve({ done: true, value: undefined })
  }

  next(): Promise<IteratorResult<EngineOutput>> {
    const output = this.#pending.shift()
    if (output) return Promise.resolve({ done: false, value: output })
    if (this.#error) {
      const error = this.#error
      this.#error = undefined
      return Promise.reject(error)
    }
    if (this.#open <= 0) return Promise.resolve({ done: true, value: undefined })
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }))
  }

  return(): Promise<IteratorResult<EngineOutput>> {
    const early = this.#open > 0
    this.#open = 0
    this.#error = undefined
    this.#pending.takeAll()
    for (const { resolve } of this.#waiting.splice(0)) resolve({ done: true, value: undefined })
    if (early) this.#onReturn()
    return Promise.resolve({ done: true, value: undefined })
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}
