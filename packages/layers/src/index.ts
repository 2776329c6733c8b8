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
export { type ConfigJson, ConfigReader } from './config.ts'
export { defineModel, type ModelDefinition } from './definition.ts'
export { ParallelLMHead, type ParallelLMHeadOptions, VocabParallelEmbedding, type VocabParallelEmbeddingOptions } from './embedding.ts'
export {
  ColumnParallelLinear,
  type ColumnParallelOptions,
  MergedColumnParallelLinear,
  ReplicatedLinear,
  RowParallelLinear,
  type RowParallelOptions,
} from './linear.ts'
export type { LinearOptions } from './linear-layer.ts'
export { CausalLM, type SequenceClassed } from './model.ts'
export { type CachingLayer, type Env, Layer, Module, walk } from './module.ts'
export { LayerNorm, type LayerNormOptions, RMSNorm, type RMSNormOptions } from './norm.ts'
export { type HeadShape, QKVParallelLinear, type QKVParallelOptions } from './qkv.ts'
export type { LinearMethod, LinearPart, LinearPlan, LinearWeights, Quantization } from './quantization/method.ts'
export { unquantized, unquantizedMethod } from './quantization/unquantized.ts'
export { RotaryEmbedding, type RotaryEmbeddingOptions } from './rotary.ts'
export { type ReadRotaryOptions, type RotaryParameters, readRotary, rotaryParameters } from './rotary-scaling.ts'
export { type GroupedHeads, type HeadShare, headShare, type Ranks, type SharingOptions, shareOf } from './sharding.ts'
export type { Step } from './step.ts'
export { type Range, renamed, WeightMap, type WeightSlot } from './weights.ts'
