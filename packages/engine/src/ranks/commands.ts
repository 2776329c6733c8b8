import type { EngineRequest } from '../protocol.ts'

/** What changes an engine from outside. */
export type RankCommand =
  | { readonly type: 'add'; readonly request: EngineRequest }
  | { readonly type: 'abort'; readonly requestId: string }
  | { readonly type: 'resetPrefixCache' }
  | { readonly type: 'close' }

/** What rank 0 tells the others before it schedules: they are to do the same before they do. */
export interface RankFrame {
  readonly commands: readonly RankCommand[]
  /** `EngineCore.digest` of rank 0 at this moment. */
  readonly digest: number
}
