import { type CausalLM, cachingLayers } from '@aphrodite/layers'
import type { Arena, Device } from '@aphrodite/tensor'
import type { CacheGroups } from './cache-groups.ts'
import { allocateCaches, ledgerOf, planGroups, sizeGroups } from './cache-memory.ts'
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

/**
 * Takes the memory of an engine: the workspace is measured first, by a dry run at the largest batches; the cache gets what
 * the options leave it. Throws BAD_ENGINE_OPTION, CACHE_TOO_SMALL, OUT_OF_MEMORY.
 */
export function prepareMemory(model: CausalLM, device: Device, options: EngineOptions): PreparedMemory {
  if (options.maxModelLen !== null && options.maxModelLen > model.maxModelLen)
    throw engineError(
      'BAD_ENGINE_OPTION',
      `maxModelLen is ${options.maxModelLen}; the model goes up to ${model.maxModelLen} tokens. Set it to that or less, or leave it out.`,
    )
  const { maxNumSeqs, maxNumBatchedTokens, cacheDtype } = options
  const specs = cachingLayers(model).map((layer) => layer.cacheSpec())
  const plans = planGroups(specs, device, cacheDtype)
  const longest = options.maxModelLen ?? model.maxModelLen
  const mostRows = Math.max(Math.min(maxNumSeqs, maxNumBatchedTokens), Math.min(maxNumBatchedTokens, longest))
  const rowBytes = model.vocabSize * 4
  const logitsBytes =
    options.maxLogitsBytes ?? (device.asynchronous ? Math.max(LOGITS_BYTES, Math.min(2 ** 30, maxNumSeqs * rowBytes)) : LOGITS_BYTES)
  const chunkRows = Math.min(mostRows, Math.max(1, Math.floor(logitsBytes / rowBytes)))
  const workspaceBytes = measureWorkspace(model, specs, plans, device, cacheDtype, {
    maxModelLen: longest,
    maxNumSeqs,
    maxNumBatchedTokens,
    chunkRows,
    samplerBytes: samplerBytes(mostRows, longest, model.vocabSize),
  })
  const memory = device.memory()
  const bytes = options.kvCacheBytes ?? Math.floor(memory.free * options.memoryFraction) - workspaceBytes
  const { blocks, maxModelLen } = sizeGroups(plans, bytes, {
    maxModelLen: options.maxModelLen,
    modelLen: model.maxModelLen,
    maxNumSeqs,
    maxNumBatchedTokens,
    deviceKind: device.kind,
  })
  const { arena, groups, kvCaches } = allocateCaches(specs, plans, blocks, device, cacheDtype, { ...options, maxModelLen })
  try {
    const sizes = { maxModelLen, maxNumSeqs, maxNumBatchedTokens, chunkRows, workspaceBytes }
    const runner = new ModelRunner({ model, device, groups: groups.groups, kvCaches, ...sizes, overlaps: overlaps(device, options) })
    const ledger = ledgerOf(plans, blocks, { total: memory.total, weights: options.weightBytes, workspace: workspaceBytes })
    return { maxModelLen, ledger, arena, cache: groups, runner }
  } catch (error) {
    arena.release()
    throw error
  }
}

/** Whether a step is enqueued before the one before it was collected. */
export const overlaps = (device: Device, { asyncScheduling }: EngineOptions): boolean =>
  asyncScheduling === 'auto' ? device.asynchronous : asyncScheduling
