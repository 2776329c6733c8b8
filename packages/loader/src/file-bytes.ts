import { closeSync, constants, fstatSync, openSync, readSync, type Stats, statSync } from 'node:fs'
import { constants as system } from 'node:os'
import { loaderError } from './errors.ts'
import type { Native } from './native.ts'

/** The bytes of one file, as a reader of checkpoints wants them. */
export interface FileBytes {
  readonly path: string
  readonly size: number
  /** A copy of bytes [offset, offset + length), for what is looked at once. */
  read(offset: number, length: number): Uint8Array
  /** Bytes [offset, offset + length): of the mapping, or a copy where nothing is mapped. Good until `close`. */
  view(offset: number, length: number): Uint8Array
  /** Lets the system begin to read what will be viewed next. */
  expect(offset: number, length: number): void
  /** Unmaps: views have length 0 afterwards. */
  close(): void
}

/** A read call moves at most this much: below the 2 GB that the system allows. */
const CHUNK = 64 << 20

/**
 * A file that is mapped into memory, or read where there is no addon (`native` undefined).
 *
 * A mapped file that shrinks, or whose disk fails, ends the process that looks at the missing part. So every view checks
 * that the file is still as it was opened and has the system fetch the pages, which reports such a failure as an error.
 * What is left is a file cut off while a view is being read: to replace a model that is in use, rename the new file over
 * the old one, as hub downloads do.
 */
export function openFile(path: string, native: Native | undefined): FileBytes {
  const fd = openRegular(path)
  try {
    return new OpenFile(path, fd, fstatSync(fd), native)
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

function openRegular(path: string): number {
  try {
    // Before opening: a pipe would wait for a writer for ever.
    if (!statSync(path).isFile()) throw loaderError('CHECKPOINT_UNREADABLE', `${path} is not a file.`)
    return openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
  } catch (error) {
    throw unreadable(path, error)
  }
}

const unreadable = (path: string, cause: unknown): Error => {
  const { code, message } = cause as NodeJS.ErrnoException
  if (code?.startsWith('CHECKPOINT_')) return cause as Error
  const todo =
    code === 'ENOENT'
      ? 'Is the download complete?'
      : code === 'EACCES'
        ? 'Give this user the right to read it.'
        : 'Check the disk and the path.'
  return loaderError('CHECKPOINT_UNREADABLE', `${path} cannot be read: ${message} ${todo}`, { cause })
}

class OpenFile implements FileBytes {
  readonly path: string
  readonly size: number
  readonly #modified: number
  readonly #native: Native | undefined
  #fd: number | undefined
  #mapping: ArrayBuffer | undefined

  constructor(path: string, fd: number, stats: Stats, native: Native | undefined) {
    if (!stats.isFile()) throw loaderError('CHECKPOINT_UNREADABLE', `${path} is not a file.`)
    this.path = path
    this.size = stats.size
    this.#modified = stats.mtimeMs
    this.#fd = fd
    this.#native = native
  }

  read(offset: number, length: number): Uint8Array {
    const fd = this.#descriptor()
    const bytes = new Uint8Array(length)
    for (let done = 0; done < length; ) {
      let n: number
      try {
        n = readSync(fd, bytes, done, Math.min(CHUNK, length - done), offset + done)
      } catch (error) {
        throw unreadable(this.path, error)
      }
      if (n === 0) throw this.#changed()
      done += n
    }
    return bytes
  }

  view(offset: number, length: number): Uint8Array {
    const fd = this.#descriptor()
    const now = fstatSync(fd)
    if (now.size !== this.size || now.mtimeMs !== this.#modified) throw this.#changed()
    const mapping = this.#map()
    if (!mapping) return this.read(offset, length)
    const failed = length > 0 ? this.#native?.populate?.(mapping, offset, length) : 0
    if (failed === system.errno.EFAULT || failed === system.errno.EIO) throw this.#changed()
    return new Uint8Array(mapping, offset, length)
  }

  expect(offset: number, length: number): void {
    if (this.#mapping && length > 0) this.#native?.willNeed(this.#mapping, offset, length)
  }

  close(): void {
    if (this.#fd === undefined) return
    closeSync(this.#fd)
    this.#fd = undefined
    if (this.#mapping) this.#native?.unmap(this.#mapping)
    this.#mapping = undefined
  }

  #descriptor(): number {
    if (this.#fd === undefined)
      throw loaderError('CHECKPOINT_CLOSED', `${this.path} was closed: read its tensors before close(), or copy what is needed later.`)
    return this.#fd
  }

  #map(): ArrayBuffer | undefined {
    if (!this.#mapping && this.#native && this.size > 0) {
      try {
        this.#mapping = this.#native.map(this.#descriptor(), this.size)
      } catch {
        // A file system without mapping, or no address space: reading still works.
        return undefined
      }
    }
    return this.#mapping
  }

  #changed(): Error {
    return loaderError(
      'CHECKPOINT_CHANGED',
      `${this.path} changed while it was being read, or its disk failed. Load it again when it is complete; ` +
        'to replace the weights of a running model, rename a new file over the old one.',
    )
  }
}
