import type { EngineOutput, SamplingParams, TokenLogprob } from '@aphrodite/engine'
import { type IncrementalDecoder, StopChecker, type Tokenizer } from '@aphrodite/tokenizer'
import type { CompletionDelta, TokenLogprobs } from './types.ts'

/** Ids and log-probabilities with the tokens' own text. */
export function describeLogprob(entry: TokenLogprob, tokenizer: Tokenizer | null): TokenLogprobs {
  const text = (tokenId: number) => (tokenizer ? tokenizer.tokenText(tokenId) : { token: '', bytes: [] })
  const { tokenId, logprob, rank, top } = entry
  return { tokenId, ...text(tokenId), logprob, rank, top: top.map((t) => ({ tokenId: t.tokenId, ...text(t.tokenId), logprob: t.logprob })) }
}

/** One answer on its way from ids to text: decoded bit by bit, cut at stop strings. */
export class AnswerText {
  readonly #tokenizer: Tokenizer | null
  readonly #decoder: IncrementalDecoder | null
  readonly #stops: StopChecker | null
  readonly #params: SamplingParams
  #tokens = 0
  #finished = false

  constructor(tokenizer: Tokenizer | null, params: SamplingParams) {
    this.#tokenizer = tokenizer
    this.#params = params
    this.#decoder = tokenizer ? tokenizer.incrementalDecoder({ skipSpecialTokens: params.skipSpecialTokens }) : null
    this.#stops = tokenizer && params.stop.length ? new StopChecker(params.stop, { includeStop: params.includeStopStrInOutput }) : null
  }

  get finished(): boolean {
    return this.#finished
  }

  /** The delta of one engine output. A stop string ends the answer here, whatever the engine goes on with. */
  push(output: EngineOutput): CompletionDelta {
    let { finishReason } = output
    let stopReason: string | number | null = output.stopReason ?? null
    let text = ''
    let taken = 0
    // The token that ended it is part of the ids; of the text only when asked for.
    const ending = output.finishReason === 'stop' && !this.#params.includeStopStrInOutput ? output.tokenIds.length - 1 : -1
    for (const [i, id] of output.tokenIds.entries()) {
      taken++
      this.#tokens++
      if (!this.#decoder || i === ending) continue
      const found = this.#check(this.#decoder.push(id))
      text += found.text
      if (found.stop === null) continue
      finishReason = 'stop'
      stopReason = found.stop
      break
    }
    if (this.#decoder && finishReason !== null && typeof stopReason !== 'string') {
      const found = this.#check(this.#decoder.flush())
      text += found.text
      if (found.stop === null) text += this.#stops?.flush() ?? ''
      else stopReason = found.stop
    }
    this.#finished = finishReason !== null
    const logprobs = output.logprobs?.slice(0, taken).map((l) => describeLogprob(l, this.#tokenizer)) ?? null
    return { index: output.index, text, tokenIds: output.tokenIds.slice(0, taken), logprobs, finishReason, stopReason }
  }

  /** Stop strings count only once there are minTokens. */
  #check(text: string): { text: string; stop: string | null } {
    if (!this.#stops || this.#tokens < this.#params.minTokens) return { text, stop: null }
    return this.#stops.push(text)
  }
}
