import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

/** What the addon offers (`native/mapfile.cc`). It accepts only ArrayBuffers that it made itself. */
export interface Native {
  /** A stretch of a file as memory; the offset is a multiple of the page size. Throws an error with `errno`. */
  map(fd: number, offset: number, bytes: number): ArrayBuffer
  /** Ends a mapping at once; every view of it has length 0 afterwards. False when there was none. */
  unmap(buffer: ArrayBuffer): boolean
  /** The kernel starts to read this range. 0 or an errno, as with the next one. */
  willNeed(buffer: ArrayBuffer, offset: number, bytes: number): number
  /** Reads this range now. EFAULT where looking at it would have ended the process. Linux only. */
  populate?(buffer: ArrayBuffer, offset: number, bytes: number): number
  /** Memory in which a pattern of whole pages repeats, at the cost of one pattern. Linux only. */
  repeat?(pattern: Uint8Array, bytes: number): ArrayBuffer
  /** Takes the whole file's advisory lock, which ends with the descriptor. False when somebody has it. */
  tryLock(fd: number): boolean
}

const require = createRequire(import.meta.url)

/** The addon: built in this package, else the one of the package for this platform; undefined where there is none. */
export function loadNative(): Native | undefined {
  const local = fileURLToPath(new URL('../prebuilt/loader.node', import.meta.url))
  try {
    return require(existsSync(local) ? local : `@aphrodite/loader-${process.platform}-${process.arch}`) as Native
  } catch {
    // Everything works without it, only slower: files are read instead of mapped.
    return undefined
  }
}
