export type { EngineStats, FinishReason, MemoryLedger, SamplingParams } from '@aphrodite/engine'
export * from './types.ts'
