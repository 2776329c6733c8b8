import type { CacheSpec, CausalLM } from '@aphrodite/layers'
import { cachingLayers } from '@aphrodite/layers/internal'
import type { Arena, Device } from '@aphrodite/tensor'
import type { CacheGroups } from './cache-groups.ts'
import { allocateCaches, type GroupPlan, ledgerOf, planGroups, sizeGroups } from './cache-memory.ts'
import { measureWorkspace } from './dry-run.ts'
import { engineError } from './errors.ts'
import { ModelRunner } from './model-runner.ts'
import type { EngineOptions } from './options.ts'
import type { MemoryLedger } from './protocol.ts'
import { samplerBytes } from './sampler.ts'

/** A block of logits that stays small beside a model. */
const LOGITS_BYTES = 64 << 20

/** What an engine has taken of its device's memory. */
export interface PreparedMemory {
  readonly maxModelLen: number
  readonly ledger: MemoryLedger
  /** Keys, values and states. */
  readonly arena: Arena
  readonly cache: CacheGroups
  readonly runner: ModelRunner
}

/** What ranks that share a model have to have in common, and each finds out for itself. */
export interface EngineSizes {
  /** Of every cache group, block 0 included. */
  readonly blocks: readonly number[]
  readonly maxModelLen: number
}

/** What an engine will take, measured and not taken yet. */
export interface MemoryPlan {
  readonly specs: readonly CacheSpec[]
  readonly groups: readonly GroupPlan[]
  /** Rows of logits at a time. */
  readonly chunkRows: number
  readonly workspaceBytes: number
  /** Of the device. */
  readonly totalBytes: number
  readonly sizes: EngineSizes
}

/**
 * Measures what an engine needs: the workspace by a dry run at the largest batches; the cache gets what the options leave it.
 * agreed: the sizes, where they are known. Throws BAD_ENGINE_OPTION, CACHE_TOO_SMALL.
 */
export function planMemory(model: CausalLM, device: Device, options: EngineOptions, agreed?: EngineSizes): MemoryPlan {
  model.assertLoaded()
  if (options.maxModelLen !== null && options.maxModelLen > model.maxModelLen)
    throw engineError(
      'BAD_ENGINE_OPTION',
      `maxModelLen is ${options.maxModelLen}; the model goes up to ${model.maxModelLen} tokens. Set it to that or less, or leave it out.`,
    )
  const { maxNumSeqs, maxNumBatchedTokens, cacheDtype } = options
  const specs = cachingLayers(model).map((layer) => layer.cacheSpec())
  const groups = planGroups(specs, device, cacheDtype)
  const longest = options.maxModelLen ?? model.maxModelLen
  const mostRows = Math.max(Math.min(maxNumSeqs, maxNumBatchedTokens), Math.min(maxNumBatchedTokens, longest))
  const rowBytes = model.vocabSize * 4
  const logitsBytes =
    options.maxLogitsBytes ?? (device.asynchronous ? Math.max(LOGITS_BYTES, Math.min(2 ** 30, maxNumSeqs * rowBytes)) : LOGITS_BYTES)
  const chunkRows = Math.min(mostRows, Math.max(1, Math.floor(logitsBytes / rowBytes)))
  const workspaceBytes = measureWorkspace(model, specs, groups, device, cacheDtype, {
    maxModelLen: longest,
    maxNumSeqs,
    maxNumBatchedTokens,
    chunkRows,
    samplerBytes: samplerBytes(mostRows, longest, model.vocabSize),
  })
  const memory = device.memory()
  const plan = { specs, groups, chunkRows, workspaceBytes, totalBytes: memory.total }
  if (agreed) return { ...plan, sizes: agreed }
  const bytes = options.kvCacheBytes ?? Math.floor(memory.free * options.memoryFraction) - workspaceBytes
  const sizes = sizeGroups(groups, bytes, {
    maxModelLen: options.maxModelLen,
    modelLen: model.maxModelLen,
    maxNumSeqs,
    maxNumBatchedTokens,
    deviceKind: device.kind,
  })
  return { ...plan, sizes }
}

/** Takes the memory that was planned. Throws OUT_OF_MEMORY. */
export function prepareMemory(model: CausalLM, device: Device, options: EngineOptions, plan: MemoryPlan): PreparedMemory {
  const { maxNumSeqs, maxNumBatchedTokens, cacheDtype } = options
  const { specs, chunkRows, workspaceBytes } = plan
  const { blocks, maxModelLen } = plan.sizes
  const { arena, groups, kvCaches } = allocateCaches(specs, plan.groups, blocks, device, cacheDtype, { ...options, maxModelLen })
  try {
    const sizes = { maxModelLen, maxNumSeqs, maxNumBatchedTokens, chunkRows, workspaceBytes }
    const runner = new ModelRunner({ model, device, groups: groups.groups, kvCaches, ...sizes, overlaps: overlaps(device, options) })
    const ledger = ledgerOf(plan.groups, blocks, { total: plan.totalBytes, weights: options.weightBytes, workspace: workspaceBytes })
    return { maxModelLen, ledger, arena, cache: groups, runner }
  } catch (error) {
    arena.release()
    throw error
  }
}

/** Whether a step is enqueued before the one before it was collected. */
export const overlaps = (device: Device, { asyncScheduling }: EngineOptions): boolean =>
  asyncScheduling === 'auto' ? device.asynchronous : asyncScheduling
