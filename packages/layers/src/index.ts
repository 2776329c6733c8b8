export { activate, activateAndMul, readActivation, siluAndMul } from './activation.ts'
export { Attention, type AttentionSpec } from './attention.ts'
export { readHeads, readSlidingWindow, readWindows } from './attention-config.ts'
export type {
  AttentionMetadata,
  CacheSpec,
  LayerCache,
  PagedLayerCache,
  PagedMetadata,
  PagedSpec,
  StateLayerCache,
  StateMetadata,
  StateSpec,
} from './cache.ts'
export { ConfigReader } from './config.ts'
export { type ConfigJson, defineModel, type ModelDefinition } from './definition.ts'
