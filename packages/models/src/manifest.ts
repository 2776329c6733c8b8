import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { modelsError } from './errors.ts'

/** A registration that another thread or process can make again: `registry.replay([…])`. Plain data. */
export interface ModuleRegistration {
  readonly architecture: string
  /** A URL for `import()`. */
  readonly module: string
  /** The package that offers it, where one does. */
  readonly package?: string
}

/**
 * What a package says in its package.json: `"aphrodite": { "models": { "XForCausalLM": "./x.js" } }`, paths as seen from itself.
 * Undefined where it says nothing. Throws BAD_MODEL_MODULE where it says it wrongly.
 */
export function modelsOf(home: string): ModuleRegistration[] | undefined {
  const path = join(home, 'package.json')
  const manifest = readManifest(path)
  const said = manifest?.['aphrodite']
  if (said === undefined) return undefined
  const { models } = record(said)
  if (models === undefined) throw wrong(path, 'aphrodite', said, 'it should be { "models": { "XForCausalLM": "./file.js" } }')
  const entries = Object.entries(record(models))
  if (entries.length === 0) throw wrong(path, 'aphrodite.models', models, 'it should give each architecture a file as ./file.js')
  const name = typeof manifest?.['name'] === 'string' ? manifest['name'] : home
  return entries.map(([architecture, file]) => {
    if (typeof file !== 'string' || !file.startsWith('./'))
      throw wrong(path, `aphrodite.models.${architecture}`, file, 'it should be a file as ./file.js')
    if (!existsSync(join(home, file)))
      throw wrong(path, `aphrodite.models.${architecture}`, file, `there is no such file in ${home}. Is the package built?`)
    return { architecture, module: pathToFileURL(join(home, file)).href, package: name }
  })
}

const wrong = (path: string, key: string, value: unknown, why: string) =>
  modelsError('BAD_MODEL_MODULE', `${path}: ${key} is ${JSON.stringify(value)}; ${why}`)

/** The folder of an installed package, as seen from a folder. */
export function installed(name: string, folder: string): string | undefined {
  for (const at of upwards(folder)) {
    const home = join(at, 'node_modules', name)
    if (existsSync(join(home, 'package.json'))) return home
  }
  return undefined
}

/** A folder and those above it. */
export function* upwards(folder: string): Generator<string> {
  for (let at = folder; ; at = dirname(at)) {
    yield at
    if (at === dirname(at)) return
  }
}

/** Undefined where there is none; somebody else's broken file is not this program's concern. */
export function readManifest(path: string): Record<string, unknown> | undefined {
  try {
    return record(JSON.parse(readFileSync(path, 'utf8')))
  } catch {
    return undefined
  }
}

export const record = (x: unknown): Record<string, unknown> =>
  typeof x === 'object' && x !== null && !Array.isArray(x) ? (x as Record<string, unknown>) : {}
