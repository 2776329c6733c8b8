import type { SamplingParams } from './params.ts'

/** Why an output ended. `length`: maxTokens or the context; `stop`: an end token, a stop id or a stop string; `abort`: the client went away. */
export type FinishReason = 'stop' | 'length' | 'abort'

/**
 * What the engine's thread is given: ids and numbers only, so that it crosses a thread or a process. Text, stop strings,
 * templates and tokenizers stay on the other side.
 */
export interface EngineRequest {
  readonly id: string
  readonly promptTokenIds: readonly number[]
  readonly params: SamplingParams
  /** Requests with different salts share no cached prefix. */
  readonly cacheSalt?: string
  /** Greater goes first; 0 unless said. */
  readonly priority?: number
  /** Return the logits of every prompt position and generate nothing. */
  readonly returnLogits?: boolean
}

/** The chosen token's log-probability and the likeliest ones', natural logarithm. */
export interface TokenLogprob {
  readonly tokenId: number
  readonly logprob: number
  /** 1 for the most likely. */
  readonly rank: number
  readonly top: readonly { readonly tokenId: number; readonly logprob: number }[]
}

/** New tokens of one answer of one request, since the last event. */
export interface EngineOutput {
  readonly requestId: string
  /** Which of the n answers. */
  readonly index: number
  readonly tokenIds: readonly number[]
  readonly logprobs?: readonly TokenLogprob[]
  /** With the first output: one entry a prompt token; the first token has none. */
  readonly promptLogprobs?: readonly (TokenLogprob | null)[]
  /** With the first output: how many prompt tokens came from the prefix cache. */
  readonly cachedTokens?: number
  readonly finishReason: FinishReason | null
  /** The stop token's id, when one ended it. */
  readonly stopReason?: number | null
  /** For returnLogits: f32 [promptTokens, vocab]. */
  readonly logits?: Float32Array
}

/** A request that failed alone: the others go on. */
export interface EngineFailure {
  readonly requestId: string
  readonly code: string
  readonly message: string
}

/** Numbers for people and for metrics. Times in seconds since the engine started, where they are times. */
export interface EngineStats {
  readonly running: number
  readonly waiting: number
  readonly cacheBlocks: number
  readonly cacheBlocksUsed: number
  readonly prefixHitTokens: number
  readonly prefixQueryTokens: number
  readonly preemptions: number
  readonly promptTokens: number
  readonly generatedTokens: number
  readonly steps: number
}

/** Where memory went: bytes. */
export interface MemoryLedger {
  readonly total: number
  readonly weights: number
  readonly workspace: number
  readonly cache: number
  readonly cacheTokens: number
  readonly groups: readonly {
    readonly kind: string
    readonly layers: number
    readonly blocks: number
    readonly blockBytes: number
    readonly window: number
  }[]
}

/** What the front sees of an engine, wherever it runs. `packages/engine/src/client.ts` implements it over a message port. */
export interface EngineClient {
  readonly ledger: MemoryLedger
  /** Yields until every one of the n answers has a finish reason. Returning early aborts. Throws EngineFailure as an AphroditeError. */
  submit(request: EngineRequest): AsyncIterableIterator<EngineOutput>
  abort(requestId: string): void
  stats(): Promise<EngineStats>
  /** Drops every cached prefix that nobody uses. */
  resetPrefixCache(): Promise<void>
  close(): Promise<void>
}
