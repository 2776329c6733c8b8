import type { EngineFailure, EngineOutput, EngineRequest, EngineStats, MemoryLedger } from './protocol.ts'

/** What the front says to an engine's thread. */
export type Command =
  | { readonly type: 'add'; readonly request: EngineRequest }
  | { readonly type: 'abort'; readonly requestId: string }
  /** `events` has arrived: the engine may send more. */
  | { readonly type: 'seen' }
  | { readonly type: 'stats'; readonly call: number }
  | { readonly type: 'resetPrefixCache'; readonly call: number }
  | { readonly type: 'close' }

/** What an engine's thread says to the front. */
export type Report =
  | { readonly type: 'ready'; readonly ledger: MemoryLedger; readonly maxModelLen: number }
  | { readonly type: 'events'; readonly outputs: readonly EngineOutput[]; readonly failures: readonly EngineFailure[] }
  | { readonly type: 'reply'; readonly call: number; readonly stats?: EngineStats }
  | { readonly type: 'dead'; readonly message: string }
  | { readonly type: 'closed' }
