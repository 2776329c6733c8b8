import { cachingLayers } from '@aphrodite/layers/internal'
import { openCheckpoint, readConfig, resolveModel, type TensorInfo } from '@aphrodite/loader'
import { Arena, measuringDevice, sizeOf } from '@aphrodite/tensor'
import { openDevice } from './devices.ts'
import { chooseCacheDType, chooseDType, DTYPE_NAME } from './dtype.ts'
import { buildModel, describeModel } from './model-loading.ts'
import { resolveOptions } from './options.ts'
import { rankToMeasure } from './ranks/communicator.ts'
import { applyRegistrations, collectRegistrations } from './registrations.ts'
import type { LLMOptions } from './types.ts'

export interface CacheGroupReport {
  readonly kind: string
  readonly layers: number
  /** Tokens that are kept; 0: all. */
  readonly window: number
  readonly bytesPerToken: number
}

export interface ModelReport {
  readonly folder: string
  readonly config: Readonly<Record<string, unknown>>
  readonly dtype: string
  readonly device: string
  readonly parameters: number
  readonly weightBytes: number
  readonly cacheGroups: readonly CacheGroupReport[]
  readonly bytesPerSequence: number
  readonly maxModelLen: number
  readonly freeMemory: number
  readonly weights: readonly Pick<TensorInfo, 'name' | 'dtype' | 'shape'>[]
}

/** What a model is and what it will need, from config.json and the headers of its weights: nothing is loaded. */
export async function inspectModel(given: LLMOptions): Promise<ModelReport> {
  const options = resolveOptions(given)
  const folder = await resolveModel(options.model, options.revision === undefined ? {} : { revision: options.revision })
  await applyRegistrations(collectRegistrations(options.plugins))
  const described = await describeModel(readConfig(folder))
  const { config, quantization } = described
  const model = buildModel(described)
  const device = openDevice({ ...options, pinThreads: false }, () => {})
  const dtype = chooseDType(options.dtype, config.json, device.kind)
  const cacheBytes = sizeOf(chooseCacheDType(options.kvCacheDtype, dtype))
  try {
    const counting = measuringDevice(device)
    const arena = new Arena(counting)
    const maxModelLen = options.maxModelLen ?? model.maxModelLen
    const expected = model.materialize({
      device: counting,
      arena,
      tp: rankToMeasure(options.tensorParallelSize),
      dtype,
      quantization,
      maxModelLen,
    })
    const groups = new Map<string, CacheGroupReport>()
    for (const spec of cachingLayers(model).map((layer) => layer.cacheSpec())) {
      const window = spec.kind === 'paged' ? spec.window : 0
      const bytes = spec.kind === 'paged' ? spec.kvHeads * (spec.keyDim + spec.valueDim) * cacheBytes : 0
      const key = `${spec.kind} ${window}`
      const before = groups.get(key) ?? { kind: spec.kind, layers: 0, window, bytesPerToken: 0 }
      groups.set(key, { ...before, layers: before.layers + 1, bytesPerToken: before.bytesPerToken + bytes })
    }
    const weights =
      options.loadFormat === 'dummy'
        ? [...expected.slots].map(([name, slots]) => ({ name, dtype, shape: slots[0]!.shape }))
        : tensorsOf(folder)
    return {
      folder,
      config: config.json,
      dtype: DTYPE_NAME[dtype],
      device: device.description,
      parameters: [...expected.slots.values()].reduce((sum, slots) => sum + slots[0]!.shape.reduce((a, b) => a * b, 1), 0),
      weightBytes: arena.usedBytes,
      cacheGroups: [...groups.values()],
      bytesPerSequence: [...groups.values()].reduce(
        (sum, g) => sum + g.bytesPerToken * (g.window ? Math.min(g.window, maxModelLen) : maxModelLen),
        0,
      ),
      maxModelLen,
      freeMemory: device.memory().free,
      weights,
    }
  } finally {
    device.close()
  }
}

function tensorsOf(folder: string): readonly TensorInfo[] {
  const checkpoint = openCheckpoint(folder)
  const { tensors } = checkpoint
  checkpoint.close()
  return tensors
}
