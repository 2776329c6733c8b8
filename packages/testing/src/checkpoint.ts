import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type FloatDType, product, sizeOf } from '@aphrodite/tensor'
import { Random } from './random.ts'
import { elementsOf } from './reference/memory.ts'
import { type FileTensor, writeSafetensors } from './safetensors.ts'

/** One tensor of a random checkpoint: normal numbers of this mean and standard deviation. */
export interface RandomTensor {
  readonly shape: readonly number[]
  /** Default bf16. */
  readonly dtype?: FloatDType
  /** Default 0; 1 suits the weight of a norm. */
  readonly mean?: number
  /** Default 1 / sqrt(last dimension), which keeps activations near 1; 0.1 for vectors. */
  readonly deviation?: number
}

export interface RandomCheckpointOptions {
  /** Written as config.json. */
  readonly config: Readonly<Record<string, unknown>>
  /** By the names of the checkpoint. */
  readonly tensors: Readonly<Record<string, RandomTensor>>
  readonly seed: number
  /** More than 1 writes model-0000i-of-0000n.safetensors and their index. Default 1. */
  readonly shards?: number
}

/** Writes a model directory with random weights: config.json and model.safetensors, or shards with an index. Same seed, same bytes. */
export function randomCheckpoint(dir: string, { config, tensors, seed, shards = 1 }: RandomCheckpointOptions): void {
  mkdirSync(dir, { recursive: true })
  writeFileSync(join(dir, 'config.json'), `${JSON.stringify(config, null, 2)}\n`)
  const random = new Random(seed)
  const all = Object.entries(tensors).map(([name, spec]) => [name, randomTensor(random, spec)] as const)
  if (shards === 1) {
    writeSafetensors(join(dir, 'model.safetensors'), Object.fromEntries(all), { format: 'pt' })
    return
  }
  const weightMap: Record<string, string> = {}
  const perShard = Math.ceil(all.length / shards)
  for (let i = 0; i < shards; i++) {
    const five = (n: number) => String(n).padStart(5, '0')
    const file = `model-${five(i + 1)}-of-${five(shards)}.safetensors`
    const part = all.slice(i * perShard, (i + 1) * perShard)
    for (const [name] of part) weightMap[name] = file
    writeSafetensors(join(dir, file), Object.fromEntries(part), { format: 'pt' })
  }
  const total = all.reduce((sum, [, t]) => sum + t.bytes.byteLength, 0)
  const index = { metadata: { total_size: total }, weight_map: weightMap }
  writeFileSync(join(dir, 'model.safetensors.index.json'), `${JSON.stringify(index, null, 2)}\n`)
}

export function randomTensor(random: Random, { shape, dtype = 'bf16', mean = 0, deviation }: RandomTensor): FileTensor {
  const size = product(shape)
  const bytes = new Uint8Array(size * sizeOf(dtype))
  const elements = elementsOf(bytes.buffer, 0, dtype, size)
  const spread = deviation ?? (shape.length > 1 ? 1 / Math.sqrt(shape[shape.length - 1]!) : 0.1)
  for (let i = 0; i < size; i++) elements.set(i, mean + spread * random.normal())
  return { dtype, shape, bytes }
}
