import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { CausalLM, type ConfigJson, unquantized } from '@aphrodite/layers'
import { ArchitectureRegistry, type Model, ModelRegistry } from '@aphrodite/models'
import { Arena, contiguousStrides, type HostArray, measuringDevice, type NamedArray, singleRank } from '@aphrodite/tensor'
import type { RandomTensor } from '../checkpoint.ts'
import { randomTensor } from '../checkpoint.ts'
import { testingError } from '../errors.ts'
import { Random } from '../random.ts'
import { createReferenceDevice } from '../reference/device.ts'
import { readSafetensors } from '../safetensors.ts'

/** A model and what it is fed with. */
export interface Material {
  /** For people. */
  readonly name: string
  readonly weights: readonly NamedArray[]
  /** A new one, not materialised. */
  create(): Promise<CausalLM>
  load(model: CausalLM, weights: Iterable<NamedArray>): void
  /** Why the model's own loadWeights is not among what is tested. */
  readonly loadNote?: string
}

/** What the original implementation computed. */
export interface ReferencePrompt {
  readonly prompt: readonly number[]
  /** Rows of the last positions. */
  readonly logits: readonly Float32Array[]
  readonly greedy: readonly number[]
  readonly gap: readonly number[]
}

/** Makes models of a definition, a class, or the name of a registered architecture. */
export async function factoryOf(model: Model | string, architecture: string): Promise<(config: ConfigJson) => Promise<CausalLM>> {
  const registry = new ArchitectureRegistry()
  registry.registerModel(architecture, typeof model === 'string' ? await ModelRegistry.resolve([model]) : model)
  return (config) => registry.create({ ...config, architectures: [architecture] }, 'the config of verifyModel')
}

export function readConfigOf(folder: string): ConfigJson {
  const path = join(folder, 'config.json')
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as ConfigJson
  } catch (error) {
    throw testingError('BAD_REFERENCE_FOLDER', `${path} cannot be read: ${(error as Error).message}`)
  }
}

/** A checkpoint on disk. */
export function materialOfFolder(folder: string, create: () => Promise<CausalLM>): Material {
  const files = readdirSync(folder).filter((f) => f.endsWith('.safetensors') && f !== 'reference.safetensors')
  if (files.length === 0) throw testingError('BAD_REFERENCE_FOLDER', `${folder} has no *.safetensors beside reference.safetensors`)
  const weights = files.flatMap((f) => Object.entries(readSafetensors(join(folder, f))).map(([name, array]) => ({ name, array })))
  return { name: 'the reference’s weights', weights, create, load: (model, w) => model.loadWeights(w) }
}

/** Random weights, by the names given or by those that the layers ask for. */
export async function randomMaterial(
  create: () => Promise<CausalLM>,
  tensors: Readonly<Record<string, RandomTensor>> | undefined,
  seed: number,
): Promise<Material> {
  const random = new Random(seed)
  const weights = Object.entries(tensors ?? (await expectedOf(create))).map(([name, spec]) => ({ name, array: arrayOf(random, spec) }))
  const name = 'random weights'
  if (tensors) return { name, weights, create, load: (model, w) => model.loadWeights(w) }
  const own = (await create()).loadWeights !== CausalLM.prototype.loadWeights
  return {
    name,
    weights,
    create,
    load: (model, w) => CausalLM.prototype.loadWeights.call(model, w),
    ...(own && {
      loadNote: 'the model maps its checkpoints’ names or tensors itself: give `tensors` or `reference`, so that this is run too',
    }),
  }
}

/** Weights of norms lie around 1, everything else around 0. In bfloat16, as checkpoints are: every dtype computes with the same ones. */
async function expectedOf(create: () => Promise<CausalLM>): Promise<Record<string, RandomTensor>> {
  const device = measuringDevice(createReferenceDevice())
  const model = await create()
  const map = model.materialize({ device, arena: new Arena(device), tp: singleRank, dtype: 'f32', quantization: unquantized })
  return Object.fromEntries(
    [...map.slots].map(([name, slots]) => {
      const { shape } = slots[0]!
      return [name, { shape, mean: shape.length === 1 && name.endsWith('.weight') ? 1 : 0 }]
    }),
  )
}

function arrayOf(random: Random, spec: RandomTensor): HostArray {
  const { dtype, shape, bytes } = randomTensor(random, spec)
  return { dtype, shape, bytes, strides: contiguousStrides(shape) }
}

/** reference.safetensors: prompt.k, logits.k, greedy.k and gap.k for k = 0, 1, … */
export function readReference(folder: string): ReferencePrompt[] {
  const file = join(folder, 'reference.safetensors')
  const arrays = readSafetensors(file)
  const prompts: ReferencePrompt[] = []
  for (let k = 0; arrays[`prompt.${k}`]; k++) {
    const part = (name: string): HostArray => {
      const array = arrays[`${name}.${k}`]
      if (!array) throw testingError('BAD_REFERENCE_FOLDER', `${file} has prompt.${k} and no ${name}.${k}`)
      return array
    }
    const logits = part('logits')
    const width = logits.shape[1]!
    const values = floats(logits)
    prompts.push({
      prompt: ints(part('prompt')),
      logits: Array.from({ length: logits.shape[0]! }, (_, i) => values.subarray(i * width, (i + 1) * width)),
      greedy: ints(part('greedy')),
      gap: [...floats(part('gap'))],
    })
  }
  if (prompts.length === 0) throw testingError('BAD_REFERENCE_FOLDER', `${file} has no prompt.0`)
  return prompts
}

function ints({ bytes, dtype }: HostArray): number[] {
  if (dtype === 'i32') return [...new Int32Array(bytes.slice().buffer)]
  if (dtype === 'i64') return [...new BigInt64Array(bytes.slice().buffer)].map(Number)
  throw testingError('BAD_REFERENCE_FOLDER', `prompts and greedy tokens of a reference are i32 or i64, not ${dtype}`)
}

function floats({ bytes, dtype }: HostArray): Float32Array {
  if (dtype !== 'f32') throw testingError('BAD_REFERENCE_FOLDER', `logits and gaps of a reference are f32, not ${dtype}`)
  return new Float32Array(bytes.slice().buffer)
}

/** Prompts: a few short ones that grow over a page together, and two that begin alike over more than two pages. */
export function promptsFor(vocabulary: number, most: number, seed: number): number[][] {
  const random = new Random(seed)
  const tokens = (count: number): number[] => Array.from({ length: Math.max(1, count) }, () => random.below(vocabulary))
  const long = Math.min(70, most)
  const shared = tokens(Math.floor(long * 0.7))
  const short = [5, 19, 13, 9, 11].map((length) => tokens(Math.min(length, most)))
  return [...short, ...[1, 2].map(() => [...shared, ...tokens(long - shared.length)])]
}
