import { constants } from 'node:buffer'
import { contiguousStrides, type HostArray, type NamedArray, sizeOf } from '@aphrodite/tensor'
import { loaderError } from './errors.ts'
import { type FileBytes, openFile } from './file-bytes.ts'
import { quote } from './json-reader.ts'
import { loadNative, type Native } from './native.ts'
import { withDefaults } from './options.ts'
import { readSafetensorsHeader, type SafetensorsHeader, type TensorEntry } from './safetensors-header.ts'

/** While one tensor is used, the system is asked for so many bytes of what follows. */
const READ_AHEAD = 32 << 20

/** One safetensors file. Its arrays are views of the mapped file, good until `close()`. */
export class SafetensorsFile implements Iterable<NamedArray> {
  readonly path: string
  /** In the order of the file. */
  readonly tensors: readonly TensorEntry[]
  readonly metadata: Readonly<Record<string, string>>
  readonly #file: FileBytes
  #byName: ReadonlyMap<string, TensorEntry> | undefined

  /** Use `openSafetensors`. */
  constructor(file: FileBytes, header: SafetensorsHeader = readSafetensorsHeader(file)) {
    this.path = file.path
    this.tensors = header.tensors
    this.metadata = header.metadata
    this.#file = file
  }

  /** Undefined for a name that the file does not have. */
  entry(name: string): TensorEntry | undefined {
    this.#byName ??= new Map(this.tensors.map((t) => [t.name, t]))
    return this.#byName.get(name)
  }

  /** A tensor by name. Throws CHECKPOINT_TENSOR when there is none. */
  get(name: string): HostArray {
    const entry = this.entry(name)
    if (!entry) throw loaderError('CHECKPOINT_TENSOR', `${this.path} has no tensor ${quote(name)}.`)
    return this.array(entry)
  }

  /** The elements of one of `tensors`. `bytes` starts at a multiple of the element's size. */
  array({ name, dtype, shape, offset, bytes }: TensorEntry): HostArray {
    if (bytes > constants.MAX_LENGTH) {
      throw loaderError(
        'CHECKPOINT_TENSOR',
        `${this.path}: tensor ${quote(name)} has ${bytes} bytes; an array of Node ${process.versions.node} has at most ${constants.MAX_LENGTH}. Use Node 22.3 or newer.`,
      )
    }
    let view = this.#file.view(offset, bytes)
    // Headers are padded so that this does not happen; nobody has to pad.
    if (view.byteOffset % sizeOf(dtype) !== 0) view = view.slice()
    this.#file.expect(offset + bytes, Math.min(READ_AHEAD, this.#file.size - offset - bytes))
    return { bytes: view, dtype, shape, strides: contiguousStrides(shape) }
  }

  *[Symbol.iterator](): Iterator<NamedArray> {
    for (const entry of this.tensors) yield { name: entry.name, array: this.array(entry) }
  }

  close(): void {
    this.#file.close()
  }
}

export interface OpenOptions {
  /** Map files into memory (the default) or read them: for file systems on which mapping is slow or unsafe. */
  readonly mmap?: boolean
}

/** Opens one safetensors file. Throws CHECKPOINT_… when it is none, is not whole or lies about itself. */
export function openSafetensors(path: string, options: OpenOptions = {}): SafetensorsFile {
  const { mmap } = withDefaults('openSafetensors', { mmap: true }, ['mmap'], options)
  return openWith(path, mmap ? loadNative() : undefined)
}

export function openWith(path: string, native: Native | undefined): SafetensorsFile {
  const file = openFile(path, native)
  try {
    return new SafetensorsFile(file)
  } catch (error) {
    file.close()
    throw error
  }
}
