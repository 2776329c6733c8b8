import { EngineCore, type EngineOptions } from '@aphrodite/engine'
import { type CpuDevice, measurePeak, measureReadBandwidth } from '@aphrodite/kernels-cpu'
import { endTokenIds, readConfig, readGenerationConfig } from '@aphrodite/loader'
import { ModelRegistry, type ModuleRegistration } from '@aphrodite/models'
import type { FloatDType } from '@aphrodite/tensor'
import { openDevice } from './devices.ts'
import { chooseDType, DTYPE_NAME } from './dtype.ts'
import { llmError } from './errors.ts'
import { buildModel, type LoadedModel, loadModel } from './model-loading.ts'
import type { ResolvedOptions } from './options.ts'
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
  measureLimits(): DeviceLimits
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
  const dtype = chooseDType(options.dtype, config.json)
  const device = openDevice(options, say)
  try {
    const loaded = loadModel(model, device, dtype, folder, options, say)
    const core = new EngineCore({
      model,
      device,
      cacheDtype: dtype,
      eosTokenIds: endTokenIds(config, readGenerationConfig(folder)),
      weightBytes: loaded.arena.usedBytes,
      ...engineOptions(options),
    })
    const info: LLMInfo = {
      model: options.model,
      architecture: config.architectures[0]!,
      device: device.description,
      dtype: DTYPE_NAME[dtype],
      threads: device.threads,
      maxModelLen: core.maxModelLen,
      vocabSize: model.vocabSize,
      parameters: loaded.parameters,
      bytesPerStep: loaded.bytesPerStep,
      flopsPerToken: loaded.flopsPerToken,
      lengthBound: lengthBound(config.json),
      ledger: core.ledger,
    }
    return {
      core,
      info,
      measureLimits: () => measure(loaded, device, dtype),
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

async function importPlugin(plugin: string): Promise<void> {
  try {
    await import(plugin)
  } catch (cause) {
    throw llmError('BAD_PLUGIN', `the plugin ${plugin} could not be imported: ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    })
  }
}

function engineOptions(options: EngineSetup['options']): Partial<EngineOptions> {
  const { maxModelLen, maxNumSeqs, maxNumBatchedTokens, enablePrefixCaching, kvCacheBytes, memoryFraction, seed } = options
  return {
    maxNumSeqs,
    maxNumBatchedTokens,
    enablePrefixCaching,
    memoryFraction,
    ...(maxModelLen !== undefined && { maxModelLen }),
    ...(kvCacheBytes !== undefined && { kvCacheBytes }),
    ...(seed !== undefined && { seed }),
  }
}

/** Slab by slab, since memory differs in speed from place to place. */
function measure({ arena }: LoadedModel, device: CpuDevice, dtype: FloatDType): DeviceLimits {
  const slabs = arena.slabs.filter(({ bytes }) => bytes >= 1 << 16)
  const seconds = slabs.reduce((sum, { address, bytes }) => sum + bytes / measureReadBandwidth(device, address, bytes), 0)
  return { readBytesPerSecond: slabs.reduce((sum, { bytes }) => sum + bytes, 0) / seconds, flops: measurePeak(device, dtype) }
}

/** Dynamic NTK stretches its frequencies with every token beyond the original length: what is cached would have to be turned again. */
function lengthBound(config: Readonly<Record<string, unknown>>): number | null {
  const rope = (config['rope_parameters'] ?? config['rope_scaling']) as Record<string, unknown> | undefined | null
  const type = rope?.['rope_type'] ?? rope?.['type']
  return type === 'dynamic' ? Number(rope?.['original_max_position_embeddings'] ?? config['max_position_embeddings']) : null
}
