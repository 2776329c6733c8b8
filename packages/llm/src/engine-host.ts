import { EngineCore, type EngineInit, type EngineOptions, type EngineSizes, leastSizes, measureEngine } from '@aphrodite/engine'
import { endTokenIds, readConfig, readGenerationConfig } from '@aphrodite/loader'
import { singleRank } from '@aphrodite/tensor'
import { type OpenedDevice, openDevice } from './devices.ts'
import { cacheDTypeName, chooseCacheDType, chooseDType, DTYPE_NAME } from './dtype.ts'
import { fitting, shareOfFree } from './gpu-memory.ts'
import { measureLimits } from './limits.ts'
import { buildModel, describeModel, loadModel, measureWeights } from './model-loading.ts'
import { MAX_NUM_BATCHED_TOKENS, type ResolvedOptions } from './options.ts'
import { exchangeSizes, type Meeting, meet, waitForAll } from './ranks/agreement.ts'
import { type CommunicatorHandle, openCommunicator } from './ranks/communicator.ts'
import type { RankGroup } from './ranks/group.ts'
import { applyRegistrations, type Registrations } from './registrations.ts'
import type { DeviceLimits, LLMInfo } from './types.ts'

/** What crosses into the engine's thread: plain values only. */
export interface EngineSetup {
  readonly folder: string
  readonly options: Omit<ResolvedOptions, 'onProgress'>
  readonly registrations: Registrations
}

/** A loaded model and its engine, in the thread that made them. */
export interface EngineHost {
  readonly core: EngineCore
  readonly info: LLMInfo
  measureLimits(): Promise<DeviceLimits>
  /** Of several ranks: this one cannot go on, so that none can. */
  abort(reason: string): void
  /** After the core is closed: frees weights and threads. */
  close(): void
}

/** The other ranks, as the engine of one sees them. */
export interface HostRanks {
  readonly group: RankGroup
  /** How the others reach this machine. */
  readonly address: string
  readonly secret: string
  /** Seconds that a collective may take. */
  readonly rankTimeout: number
  /** It is there now, for those who may have to abort it. */
  readonly onCommunicator: (communicator: CommunicatorHandle) => void
}

/**
 * Opens the device, builds and loads the model, and makes its engine; where there are ranks, this rank's share of it. Throws what
 * goes wrong, with everything freed.
 */
export async function openEngineHost(
  { folder, options, registrations }: EngineSetup,
  say: (message: string) => void,
  ranks?: HostRanks,
): Promise<EngineHost> {
  await applyRegistrations(registrations)
  const described = await describeModel(readConfig(folder))
  const { config, definition } = described
  if (described.origin !== undefined) say(`model: ${described.origin}`)
  const model = buildModel(described)
  const meeting = ranks && (await meet(ranks.group, described.original.json, options))
  const device = openDevice(options, say, meeting)
  try {
    const tp = ranks && meeting ? await openCommunicator(device, ranks, meeting) : singleRank
    if (tp.size > 1) ranks?.onCommunicator({ kind: device.kind, handle: tp.handle })
    const dtype = chooseDType(options.dtype, config.json, device.kind)
    const cacheDtype = chooseCacheDType(options.kvCacheDtype, dtype)
    // On a GPU in one piece, since what is left over at the ends of many would be missing from the cache; on the CPU nothing that
    // is never touched takes memory.
    const bytes = device.kind === 'cuda' ? fitting(measureWeights(described, device, dtype, tp, options.maxModelLen), device) : undefined
    const loaded = loadModel(model, described, device, dtype, tp, folder, options, say, bytes)
    // What the others take of this machine's memory is gone then.
    if (ranks) await waitForAll(ranks.group, 'loaded')
    const init: EngineInit = {
      model,
      device,
      cacheDtype,
      eosTokenIds: endTokenIds(config, readGenerationConfig(folder)),
      weightBytes: loaded.arena.usedBytes,
      ...engineOptions(
        options,
        device,
        loaded.arena.slabs.reduce((sum, { bytes }) => sum + bytes, 0),
        meeting,
      ),
    }
    const mirror: EngineSizes | undefined = ranks && leastSizes(await exchangeSizes(ranks.group, measureEngine(init)))
    const core = new EngineCore({ ...init, ...(mirror && { mirror }) })
    const info: LLMInfo = {
      model: options.model,
      architecture: described.architecture,
      device: device.description,
      deviceKind: device.kind,
      dtype: DTYPE_NAME[dtype],
      kvCacheDtype: cacheDTypeName(cacheDtype),
      threads: device.kind === 'cpu' ? device.threads : 0,
      tensorParallelSize: tp.size,
      maxModelLen: core.maxModelLen,
      vocabSize: model.vocabSize,
      parameters: loaded.parameters,
      bytesPerStep: loaded.bytesPerStep,
      flopsPerToken: loaded.flopsPerToken / tp.size,
      flopsPerTokenSeen: loaded.flopsPerTokenSeen / tp.size,
      lengthBound: lengthBound(config.json),
      chatTemplate: definition.chatTemplate ?? null,
      ledger: core.ledger,
      freeMemory: device.memory().free,
    }
    return {
      core,
      info,
      measureLimits: () => measureLimits(device, loaded.arena, dtype),
      abort: (reason) => tp.abort(reason),
      close() {
        tp.close()
        loaded.arena.release()
        device.close()
      },
    }
  } catch (error) {
    device.close()
    throw error
  }
}

function engineOptions(
  options: EngineSetup['options'],
  device: OpenedDevice,
  weightBytes: number,
  meeting: Meeting | undefined,
): Partial<EngineOptions> {
  const { maxModelLen, maxNumSeqs, enablePrefixCaching, captureAtStart, kvCacheBytes } = options
  const memoryFraction = options.memoryFraction / (meeting?.sharingMemory ?? 1)
  const seed = meeting ? meeting.seed : options.seed
  return {
    maxNumSeqs,
    maxNumBatchedTokens: options.maxNumBatchedTokens ?? MAX_NUM_BATCHED_TOKENS[device.kind],
    enablePrefixCaching,
    captureAtStart,
    memoryFraction: device.kind === 'cuda' ? shareOfFree(device, options.gpuMemoryUtilization, weightBytes) : memoryFraction,
    ...(maxModelLen !== undefined && { maxModelLen }),
    ...(kvCacheBytes !== undefined && { kvCacheBytes }),
    ...(seed !== undefined && { seed }),
  }
}

/** Dynamic NTK stretches its frequencies with every token beyond the original length: what is cached would have to be turned again. */
function lengthBound(config: Readonly<Record<string, unknown>>): number | null {
  const rope = (config['rope_parameters'] ?? config['rope_scaling']) as Record<string, unknown> | undefined | null
  const type = rope?.['rope_type'] ?? rope?.['type']
  return type === 'dynamic' ? Number(rope?.['original_max_position_embeddings'] ?? config['max_position_embeddings']) : null
}
