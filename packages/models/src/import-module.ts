import { fileURLToPath } from 'node:url'
import { AphroditeError } from '@aphrodite/tensor'
import { modelsError } from './errors.ts'

/**
 * In a thread or a process that only runs an engine, modules are imported for the models that they register, and one of them may
 * be a whole program that registers and then starts an engine of its own. There it ends at that point.
 */
let programEnds: (() => void) | undefined
let registersOnly = false

/** Called once by whoever starts such a thread or process, before anything is imported. */
export function registerOnlyHere(): void {
  registersOnly = true
}

/**
 * What a program calls before it starts an engine or a server: undefined, unless it is run again for its registrations alone. Then
 * a promise that never settles, so that nothing behind it happens twice.
 */
export function endOfRegistering(): Promise<never> | undefined {
  if (!registersOnly) return undefined
  programEnds?.()
  return new Promise<never>(() => {})
}

/** The longest that a module may take to be imported, in milliseconds. */
const IMPORT_MS = 60_000

/**
 * The exports of a module; those of a program that ended at `endOfRegistering` are none. Throws where it waits at its top level for
 * longer than `limit`, for then nothing would ever be said.
 */
export async function importModule(url: string, limit = IMPORT_MS): Promise<Readonly<Record<string, unknown>>> {
  const before = programEnds
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<never>((_, reject) => {
    const why = `it is not imported after ${limit / 1000} s. Does it wait for something at its top level?`
    timer = setTimeout(() => reject(modelsError('BAD_MODEL_MODULE', why)), limit)
  })
  const ended = new Promise<Record<string, unknown>>((resolve) => {
    if (registersOnly) programEnds = () => resolve({})
  })
  try {
    return await Promise.race([import(url) as Promise<Record<string, unknown>>, ended, late])
  } finally {
    clearTimeout(timer)
    programEnds = before
  }
}

/** What was wrong with an imported module, and where: `Unexpected token '}' (/a/model.js:3)`. */
export function causeOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error instanceof AphroditeError) return error.message
  const [line = ''] = error.message.split('\n')
  const at = /file:\/\/[^\s()]+?:\d+/.exec(error.stack ?? '')?.[0]
  const place = at && placeOf(at)
  return place && !line.includes(place) ? `${line} (${place})` : line
}

/** A file as people name it: its path, and the line where there is one. */
export function placeOf(url: string): string {
  const [, file, line = ''] = /^(file:.*?)(:\d+)?$/.exec(url) ?? []
  return file === undefined ? url.slice(0, 200) : `${fileURLToPath(file)}${line}`
}
