import { constants } from 'node:buffer'
import { closeSync, fstatSync, constants as open, openSync, readSync, type Stats, statSync } from 'node:fs'
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

/** Mappings start at multiples of this: of every page size there is. */
const GRANULE = 64 << 10

const LARGEST_WINDOW = Math.floor(constants.MAX_LENGTH / GRANULE) * GRANULE

/** A mapped stretch of a file. */
interface Window {
  readonly start: number
  readonly buffer: ArrayBuffer
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
    return openSync(path, open.O_RDONLY | (open.O_NONBLOCK ?? 0))
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
  /** One, where an array of Node can hold the whole file. */
  #windows: Window[] = []

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
    const window = length > 0 ? this.#window(offset, length) : undefined
    if (!window) return this.read(offset, length)
    const failed = this.#native?.populate?.(window.buffer, offset - window.start, length)
    if (failed === system.errno.EFAULT || failed === system.errno.EIO) throw this.#changed()
    return new Uint8Array(window.buffer, offset - window.start, length)
  }

  expect(offset: number, length: number): void {
    const window = this.#windows.find((w) => covers(w, offset, length))
    if (window && length > 0) this.#native?.willNeed(window.buffer, offset - window.start, length)
  }

  close(): void {
    if (this.#fd === undefined) return
    closeSync(this.#fd)
    this.#fd = undefined
    for (const { buffer } of this.#windows.splice(0)) this.#native?.unmap(buffer)
  }

  #descriptor(): number {
    if (this.#fd === undefined)
      throw loaderError('CHECKPOINT_CLOSED', `${this.path} was closed: read its tensors before close(), or copy what is needed later.`)
    return this.#fd
  }

  /** A mapping that covers a stretch: of as much of what follows as an array can hold. */
  #window(offset: number, length: number): Window | undefined {
    const known = this.#windows.find((w) => covers(w, offset, length))
    if (known || !this.#native) return known
    const start = Math.floor(offset / GRANULE) * GRANULE
    const bytes = Math.min(this.size - start, LARGEST_WINDOW)
    if (offset + length > start + bytes) return undefined
    try {
      const window = { start, buffer: this.#native.map(this.#descriptor(), start, bytes) }
      this.#windows.unshift(window)
      return window
    } catch {
      // A file system without mapping, or no address space: reading still works.
      return undefined
    }
  }

  #changed(): Error {
    return loaderError(
      'CHECKPOINT_CHANGED',
      `${this.path} changed while it was being read, or its disk failed. Load it again when it is complete; ` +
        'to replace the weights of a running model, rename a new file over the old one.',
    )
  }
}

const covers = ({ start, buffer }: Window, offset: number, length: number): boolean =>
  offset >= start && offset + length <= start + buffer.byteLength
