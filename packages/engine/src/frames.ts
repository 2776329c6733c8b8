import type { EngineFailure, EngineOutput, EngineRequest, EngineStats, MemoryLedger } from './protocol.ts'

/** What the front says to an engine's thread. */
export type Command =
  /** number: what the request is called in `events`; no two that run have the same. */
  | { readonly type: 'add'; readonly request: EngineRequest; readonly number: number }
  | { readonly type: 'abort'; readonly requestId: string }
  /** `events` has arrived: the engine may send more. */
  | { readonly type: 'seen' }
  | { readonly type: 'stats'; readonly call: number }
  | { readonly type: 'resetPrefixCache'; readonly call: number }
  | { readonly type: 'close' }

/** What an engine's thread says to the front. */
export type Report =
  | { readonly type: 'ready'; readonly ledger: MemoryLedger; readonly maxModelLen: number }
  | {
      readonly type: 'events'
      /** Tokens of which there is no more to say: TOKEN_WORDS numbers each. To be read before the outputs. */
      readonly tokens: Int32Array
      readonly outputs: readonly EngineOutput[]
      readonly failures: readonly EngineFailure[]
    }
  | { readonly type: 'reply'; readonly call: number; readonly stats?: EngineStats }
  /** code: null: an error that has none. */
  | { readonly type: 'dead'; readonly code: string | null; readonly message: string }
  | { readonly type: 'closed' }
