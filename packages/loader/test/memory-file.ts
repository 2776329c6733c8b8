import type { FileBytes } from '../src/file-bytes.ts'

/** A file that was never on disk. Asking beyond its end is the reader's mistake, and no AphroditeError. */
export function memoryFile(bytes: Uint8Array, path = 'memory.safetensors'): FileBytes {
  const slice = (offset: number, length: number): Uint8Array => {
    if (!(offset >= 0 && length >= 0 && offset + length <= bytes.length))
      throw new Error(`read [${offset}, ${offset + length}) of ${bytes.length}`)
    return bytes.subarray(offset, offset + length)
  }
  return { path, size: bytes.length, read: slice, view: slice, expect() {}, close() {} }
}
