import { join } from 'node:path'
import { type DType, type HostArray, type NamedArray, product } from '@aphrodite/tensor'
import { loaderError } from './errors.ts'
import { quote } from './json-reader.ts'
import { loadNative } from './native.ts'
import { withDefaults } from './options.ts'
import { openWith, type SafetensorsFile } from './safetensors.ts'
import { findWeightFiles, INDEX, shorten, type WeightFiles } from './weight-files.ts'

/** What is known of a tensor without reading it. */
export interface TensorInfo {
  readonly name: string
  readonly dtype: DType
  readonly shape: readonly number[]
  readonly bytes: number
  /** The name of its file within the folder. */
  readonly file: string
}

export interface CheckpointProgress {
  /** The tensor that was just taken. */
  readonly name: string
  readonly loadedBytes: number
  readonly totalBytes: number
}

export interface CheckpointOptions {
  /** Map the files into memory (the default) or read them: for file systems on which mapping is slow or unsafe. */
  readonly mmap?: boolean
  /** Called after each tensor of an iteration. */
  readonly onProgress?: (progress: CheckpointProgress) => void
}

/**
 * The weights of a model folder. Iterating yields every tensor once, in the order in which they lie on disk. Arrays are
 * views of mapped files: read only, and good until `close()`, after which their bytes have length 0.
 */
export class Checkpoint implements Iterable<NamedArray> {
  readonly directory: string
  readonly files: readonly string[]
  readonly tensors: readonly TensorInfo[]
  /** Bytes of all tensors. */
  readonly bytes: number
  /** Elements of all tensors; of a quantised model what is stored, scales included. */
  readonly parameters: number
  readonly #shards: readonly SafetensorsFile[]
  readonly #where: ReadonlyMap<string, SafetensorsFile>
  readonly #onProgress: ((progress: CheckpointProgress) => void) | undefined

  /** Use `openCheckpoint`. */
  constructor(directory: string, weights: WeightFiles, shards: readonly SafetensorsFile[], onProgress?: CheckpointOptions['onProgress']) {
    this.directory = directory
    this.files = weights.names
    this.#shards = shards
    this.#where = placesOf(directory, weights, shards)
    this.#onProgress = onProgress
    this.tensors = shards.flatMap((shard, i) =>
      shard.tensors.map(({ name, dtype, shape, bytes }) => ({ name, dtype, shape, bytes, file: weights.names[i]! })),
    )
    this.bytes = this.tensors.reduce((sum, t) => sum + t.bytes, 0)
    this.parameters = this.tensors.reduce((sum, t) => sum + product(t.shape), 0)
  }

  has(name: string): boolean {
    return this.#where.has(name)
  }

  /** One tensor by name. Throws CHECKPOINT_TENSOR when there is none. */
  get(name: string): HostArray {
    const shard = this.#where.get(name)
    if (!shard) throw loaderError('CHECKPOINT_TENSOR', `${this.directory} has no tensor ${quote(name)}.`)
    return shard.get(name)
  }

  *[Symbol.iterator](): Iterator<NamedArray> {
    let loadedBytes = 0
    for (const shard of this.#shards) {
      for (const entry of shard.tensors) {
        yield { name: entry.name, array: shard.array(entry) }
        loadedBytes += entry.bytes
        this.#onProgress?.({ name: entry.name, loadedBytes, totalBytes: this.bytes })
      }
    }
  }

  /** Unmaps everything. */
  close(): void {
    for (const shard of this.#shards) shard.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/**
 * Opens the weights of a folder: `model.safetensors`, or the shards that `model.safetensors.index.json` lists, or any
 * `*.safetensors`. Every header is read and checked; no weight is. Throws CHECKPOINT_… and names file and tensor.
 */
export function openCheckpoint(directory: string, options: CheckpointOptions = {}): Checkpoint {
  const { mmap, onProgress } = withDefaults<{ mmap: boolean; onProgress?: CheckpointOptions['onProgress'] }>(
    'openCheckpoint',
    { mmap: true },
    ['mmap', 'onProgress'],
    options,
  )
  const weights = findWeightFiles(directory)
  const native = mmap ? loadNative() : undefined
  const shards: SafetensorsFile[] = []
  try {
    for (const name of weights.names) shards.push(openWith(join(directory, name), native))
    return new Checkpoint(directory, weights, shards, onProgress)
  } catch (error) {
    for (const shard of shards) shard.close()
    throw error
  }
}

/** Which file has which tensor: each in one only, and where the index says. */
function placesOf(directory: string, { index, names }: WeightFiles, shards: readonly SafetensorsFile[]): Map<string, SafetensorsFile> {
  const where = new Map<string, SafetensorsFile>()
  for (const shard of shards) {
    for (const { name } of shard.tensors) {
      const other = where.get(name)
      if (other) {
        throw loaderError(
          'CHECKPOINT_DUPLICATE',
          `tensor ${quote(name)} is both in ${other.path} and in ${shard.path}. Remove the file that does not belong to this model.`,
        )
      }
      where.set(name, shard)
    }
  }
  const absent: string[] = []
  for (const [tensor, file] of index ?? []) {
    if (where.get(tensor) !== shards[names.indexOf(file)]) absent.push(`${quote(tensor)} in ${file}`)
  }
  if (absent.length > 0) {
    throw loaderError(
      'CHECKPOINT_SHARD',
      `${join(directory, INDEX)} promises tensors that are not there: ${shorten(absent)}. Index and shards are of different versions: download both again.`,
    )
  }
  return where
}
