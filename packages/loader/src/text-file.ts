import { readFileSync, statSync } from 'node:fs'
import { AphroditeError } from '@aphrodite/tensor'

/**
 * A file's text; undefined when it does not exist. `fail` makes the error for what is no file, has more than `most` bytes,
 * cannot be read or is not UTF-8. A byte order mark is left out.
 */
export function readText(path: string, most: number, fail: (message: string, cause?: unknown) => AphroditeError): string | undefined {
  let bytes: Uint8Array
  try {
    const stats = statSync(path)
    // A pipe would wait for a writer for ever.
    if (!stats.isFile()) throw fail(`${path} is not a file.`)
    if (stats.size > most) throw fail(`${path} has ${stats.size} bytes: too many for what it should be.`)
    bytes = readFileSync(path)
  } catch (cause) {
    if (cause instanceof AphroditeError) throw cause
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT') return undefined
    throw fail(`${path} cannot be read: ${message}.`, cause)
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw fail(`${path} is not UTF-8 text. Download it again.`, cause)
  }
}
