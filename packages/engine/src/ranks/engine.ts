import type { EngineCore } from '../engine-core.ts'

/** What a loop drives: an engine alone, or rank 0 of several. */
export type SteppedEngine = Pick<
  EngineCore,
  'ledger' | 'maxModelLen' | 'hasWork' | 'add' | 'abort' | 'resetPrefixCache' | 'stats' | 'step' | 'close'
>
