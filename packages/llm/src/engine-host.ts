import { EngineCore, type EngineOptions } from '@aphrodite/engine'
import { endTokenIds, readConfig, readGenerationConfig } from '@aphrodite/loader'
import { ModelRegistry, type ModuleRegistration } from '@aphrodite/models'
import { type OpenedDevice, openDevice } from './devices.ts'
import { chooseDType, DTYPE_NAME } from './dtype.ts'
import { llmError } from './errors.ts'
import { fitting, shareOfFree } from './gpu-memory.ts'
import { measureLimits } from './limits.ts'
import { buildModel, loadModel, measureWeights } from './model-loading.ts'
import { MAX_NUM_BATCHED_TOKENS, type ResolvedOptions } from './options.ts'
import type { DeviceLimits, LLMInfo } from './types.ts'

/** What crosses into the engine's thread: plain values only. */
export interface EngineSetup {
  readonly folder: string
  readonly options: Omit<ResolvedOptions, 'onProgress'>
  /** Models that the starting thread has registered by module. */
  readonly registrations: readonly ModuleRegistration[]
  /** Modules whose import registers models: package names or URLs. */
  readonly plugins: readonly string[]
}

/** A loaded model and its engine, in the thread that made them. */
export interface EngineHost {
  readonly core: EngineCore
  readonly info: LLMInfo
  measureLimits(): Promise<DeviceLimits>
  /** After the core is closed: frees weights and threads. */
  close(): void
}

/** Opens the device, builds and loads the model, and makes its engine. Throws what goes wrong, with everything freed. */
export async function openEngineHost(
  { folder, options, registrations, plugins }: EngineSetup,
  say: (message: string) => void,
): Promise<EngineHost> {
  ModelRegistry.replay(registrations)
  for (const plugin of plugins) await importPlugin(plugin)
  const config = readConfig(folder)
  const model = await buildModel(config)
  const device = openDevice(options, say)
  try {
    const dtype = chooseDType(options.dtype, config.json, device.kind)
    // On a GPU in one piece, since what is left over at the ends of many would be missing from the cache; on the CPU nothing that
    // is never touched takes memory.
    const bytes =
      device.kind === 'cuda' ? fitting(measureWeights(await buildModel(config), device, dtype, options.maxModelLen), device) : undefined
    const loaded = loadModel(model, device, dtype, folder, options, say, bytes)
    const core = new EngineCore({
      model,
      device,
      cacheDtype: dtype,
      eosTokenIds: endTokenIds(config, readGenerationConfig(folder)),
      weightBytes: loaded.arena.usedBytes,
      ...engineOptions(
        options,
        device,
        loaded.arena.slabs.reduce((sum, { bytes }) => sum + bytes, 0),
      ),
    })
    const info: LLMInfo = {
      model: options.model,
      architecture: config.architectures[0]!,
      device: device.description,
      deviceKind: device.kind,
      dtype: DTYPE_NAME[dtype],
      threads: device.kind === 'cpu' ? device.threads : 0,
      maxModelLen: core.maxModelLen,
      vocabSize: model.vocabSize,
      parameters: loaded.parameters,
      bytesPerStep: loaded.bytesPerStep,
      flopsPerToken: loaded.flopsPerToken,
      flopsPerTokenSeen: loaded.flopsPerTokenSeen,
      lengthBound: lengthBound(config.json),
      ledger: core.ledger,
      freeMemory: device.memory().free,
    }
    return {
      core,
      info,
      measureLimits: () => measureLimits(device, loaded.arena, dtype),
      close() {
        loaded.arena.release()
        device.close()
      },
    }
  } catch (error) {
    device.close()
    throw error
  }
}

/** plugin: a URL. Throws BAD_PLUGIN. */
export async function importPlugin(plugin: string): Promise<void> {
  try {
    await import(plugin)
  } catch (cause) {
    throw llmError('BAD_PLUGIN', `the plugin ${plugin} could not be imported: ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    })
  }
}

function engineOptions(options: EngineSetup['options'], device: OpenedDevice, weightBytes: number): Partial<EngineOptions> {
  const { maxModelLen, maxNumSeqs, enablePrefixCaching, captureAtStart, kvCacheBytes, memoryFraction, seed } = options
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
