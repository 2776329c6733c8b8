import {
  Attention,
  CausalLM,
  ConfigReader,
  type ModelDefinition,
  ParallelLMHead,
  type Quantization,
  unquantized,
  VocabParallelEmbedding,
  type WeightMap,
  walk,
} from '@aphrodite/layers'
import { createModel } from '@aphrodite/layers/internal'
import { dummyTensors, type ModelConfig, openCheckpoint } from '@aphrodite/loader'
import { ModelRegistry, modelsError } from '@aphrodite/models'
import { Arena, type Communicator, type Device, type FloatDType, measuringDevice, product, singleRank } from '@aphrodite/tensor'
import { llmError } from './errors.ts'
import type { ResolvedOptions } from './options.ts'

export interface LoadedModel {
  readonly model: CausalLM
  readonly arena: Arena
  readonly parameters: number
  readonly bytesPerStep: number
  readonly flopsPerToken: number
  readonly flopsPerTokenSeen: number
}

/** A config.json, and the model that serves it. */
export interface DescribedModel {
  /** As the model's definition has adapted it. */
  readonly config: ModelConfig
  readonly definition: ModelDefinition
  readonly quantization: Quantization
  /** The one of config.json's architectures that is served. */
  readonly architecture: string
  /** Where its model is from, if it is not ours. */
  readonly origin: string | undefined
  readonly original: ModelConfig
}

/** Finds the model of a config.json. Throws UNKNOWN_ARCHITECTURE, BAD_MODEL_MODULE, NOT_SUPPORTED. */
export async function describeModel(original: ModelConfig): Promise<DescribedModel> {
  const definition = await ModelRegistry.resolve(original.architectures)
  const json = definition.adaptConfig?.(original.json) ?? original.json
  const architecture = ModelRegistry.find(original.architectures)
  const config = { ...original, json }
  const quantization = quantizationOf(config, definition)
  return { config, definition, quantization, architecture, origin: ModelRegistry.describe(architecture), original }
}

/** What config.json's quantization_config asks for: a method that the model's definition brings. */
function quantizationOf({ json, path }: ModelConfig, { quantizations = {} }: ModelDefinition): Quantization {
  const asked = new ConfigReader(json, path).object('quantization_config')
  if (!asked) return unquantized
  const method = asked.json['quant_method']
  const make = typeof method === 'string' && Object.hasOwn(quantizations, method) ? quantizations[method] : undefined
  if (make) return make(asked)
  const own = Object.keys(quantizations)
  throw llmError(
    'NOT_SUPPORTED',
    `${path}: quantization_config names the method ${JSON.stringify(method)}; this version reads float32, float16 and bfloat16 weights only` +
      `${own.length ? `, and the model brings ${own.join(', ')}` : ''}`,
  )
}

/** Builds the model: declared, not yet materialised. Throws BAD_CONFIG, and BAD_MODEL_MODULE for what is no model of this engine. */
export function buildModel({ definition, original, architecture, origin }: DescribedModel): CausalLM {
  const model: unknown = createModel(definition, original.json, original.path)
  if (model instanceof CausalLM) return model
  const foreign = typeof model === 'object' && model !== null && 'materialize' in model
  throw modelsError(
    'BAD_MODEL_MODULE',
    `${origin ?? architecture}: ${foreign ? 'its model is made with another copy of @aphrodite/layers than this engine.' : 'what it creates does not extend CausalLM.'}` +
      (foreign
        ? ' Run the aphrodite that is installed beside it (npx aphrodite, in the project that has both); a model package has @aphrodite/layers as a peer dependency.'
        : ''),
  )
}

/** What a model's weights and tables take on a device: another one is materialised where nothing is allocated. */
export function measureWeights(
  described: DescribedModel,
  device: Device,
  dtype: FloatDType,
  tp: Communicator = singleRank,
  maxModelLen?: number,
): number {
  const model = buildModel(described)
  const { quantization } = described
  const counting = measuringDevice(device)
  const arena = new Arena(counting)
  model.materialize({ device: counting, arena, tp, dtype, quantization, maxModelLen: maxModelLen ?? model.maxModelLen })
  return arena.usedBytes
}

/**
 * Allocates this rank's share of the model on a device and fills it from its checkpoint, or with random numbers for `loadFormat: 'dummy'`. `bytes`:
 * what it takes, to be had in one piece; left out, memory is taken bit by bit.
 */
export function loadModel(
  model: CausalLM,
  { quantization }: DescribedModel,
  device: Device,
  dtype: FloatDType,
  tp: Communicator,
  folder: string,
  options: ResolvedOptions,
  say: (message: string) => void,
  bytes?: number,
): LoadedModel {
  const arena = new Arena(device, bytes)
  try {
    const maxModelLen = options.maxModelLen ?? model.maxModelLen
    const weights = model.materialize({ device, arena, tp, dtype, quantization, maxModelLen })
    if (options.loadFormat === 'dummy') {
      say('weights: random numbers')
      weights.fill(dummyTensors(expectedOf(weights), dtype, options.seed ?? 0)) // by the model's names, not by a checkpoint's
    } else loadCheckpoint(model, folder, say)
    return { model, arena, ...sizesOf(model, weights, arena) }
  } catch (error) {
    arena.release()
    throw error
  }
}

const expectedOf = (weights: WeightMap): { name: string; shape: readonly number[] }[] =>
  [...weights.slots].map(([name, slots]) => ({ name, shape: slots[0]!.shape }))

function loadCheckpoint(model: CausalLM, folder: string, say: (message: string) => void): void {
  let last = 0
  const checkpoint = openCheckpoint(folder, {
    onProgress: ({ loadedBytes, totalBytes }) => {
      if (loadedBytes - last < totalBytes / 20 && loadedBytes < totalBytes) return
      last = loadedBytes
      say(`weights: ${(loadedBytes / 1e6).toFixed(0)} of ${(totalBytes / 1e6).toFixed(0)} MB`)
    },
  })
  try {
    model.loadWeights(checkpoint)
    say(`weights: ${(checkpoint.bytes / 1e6).toFixed(0)} MB loaded`)
  } finally {
    checkpoint.close()
  }
}

/** What one step reads and computes: a table that is only looked up is not read, a tied one is the head's. */
function sizesOf(model: CausalLM, weights: WeightMap, arena: Arena): Omit<LoadedModel, 'model' | 'arena'> {
  const paths = (kind: new (...args: never[]) => unknown) =>
    [...walk(model)].filter(([, m]) => m instanceof kind).map(([path]) => `${path}.weight`)
  const tables = paths(VocabParallelEmbedding)
  const heads = paths(ParallelLMHead).filter((name) => weights.slots.has(name))
  let parameters = 0
  let linear = 0
  let table = 0
  for (const [name, slots] of weights.slots) {
    const size = product(slots[0]!.shape)
    parameters += size
    if (tables.includes(name)) table += size
    else if (slots[0]!.shape.length === 2 && !heads.includes(name)) linear += size
  }
  const perParameter = arena.usedBytes / parameters
  const flopsPerTokenSeen = [...walk(model)].reduce((sum, [, m]) => sum + (m instanceof Attention ? m.flopsPerTokenSeen : 0), 0)
  const bytesPerStep = Math.round((parameters - (heads.length ? table : 0)) * perParameter)
  return { parameters, bytesPerStep, flopsPerToken: 2 * linear, flopsPerTokenSeen }
}
