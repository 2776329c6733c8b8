import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, isAbsolute, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { modelsError } from './errors.ts'

/**
 * The URL of a module that is named by a package, a path or a URL, as seen from `base` (a file or folder URL or path). It is
 * resolved where it is registered, because another thread would look beside this package instead.
 */
export function resolveModule(specifier: string, base: string | URL): string {
  if (/^(file|data|node):/.test(specifier)) return specifier
  const from = fileOf(base)
  if (isAbsolute(specifier)) return pathToFileURL(specifier).href
  if (/^\.\.?\//.test(specifier)) return pathToFileURL(join(dirname(from), specifier)).href
  try {
    return pathToFileURL(createRequire(from).resolve(specifier)).href
  } catch (cause) {
    const entry = importEntry(specifier, dirname(from)) // exports without a `require` or `default` condition
    if (entry) return pathToFileURL(entry).href
    throw modelsError(
      'BAD_MODEL_MODULE',
      `the module ${JSON.stringify(specifier)} was not found from ${from}. Install it there, or register an absolute path.`,
      { cause },
    )
  }
}

/** A file inside `base`, which need not exist: what createRequire asks for. */
function fileOf(base: string | URL): string {
  const path = base instanceof URL || base.startsWith('file:') ? fileURLToPath(base) : base
  return /\.[cm]?[jt]s$/.test(path) ? path : join(path, 'index.js')
}

/** Where a package that only wants to be imported has its entry. */
function importEntry(specifier: string, folder: string): string | undefined {
  const [, name, rest] = /^((?:@[^/]+\/)?[^/]+)(\/.*)?$/.exec(specifier) ?? []
  if (!name) return undefined
  for (let at = folder; ; at = dirname(at)) {
    const home = join(at, 'node_modules', name)
    const manifest = join(home, 'package.json')
    if (existsSync(manifest)) {
      const { exports } = JSON.parse(readFileSync(manifest, 'utf8')) as { exports?: unknown }
      const key = `.${rest ?? ''}`
      const target = condition(isRecord(exports) && key in exports ? exports[key] : key === '.' ? exports : undefined)
      return target && join(home, target)
    }
    if (at === dirname(at)) return undefined
  }
}

function condition(target: unknown): string | undefined {
  if (typeof target === 'string') return target
  if (!isRecord(target)) return undefined
  for (const [name, value] of Object.entries(target)) {
    const found = ['node', 'import', 'module-sync', 'default'].includes(name) ? condition(value) : undefined
    if (found) return found
  }
  return undefined
}

const isRecord = (x: unknown): x is Record<string, unknown> => typeof x === 'object' && x !== null && !Array.isArray(x)
