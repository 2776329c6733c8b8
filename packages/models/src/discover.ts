import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { modelsError } from './errors.ts'
import type { ModuleRegistration } from './registry.ts'

/**
 * The models of the packages that a project depends on. A package offers some by saying so in its package.json:
 * `"aphrodite": { "models": { "XForCausalLM": "./x.js" } }`, paths as seen from itself. Nothing is imported. Throws
 * BAD_MODEL_MODULE for a package.json that says it wrongly.
 */
export function discoverModels(folder: string): ModuleRegistration[] {
  const project = readManifest(join(folder, 'package.json'))
  const names = ['dependencies', 'devDependencies', 'optionalDependencies'].flatMap((key) => Object.keys(record(project?.[key])))
  return [...new Set(names)].flatMap((name) => {
    const home = installed(name, folder)
    return home ? modelsOf(home) : []
  })
}

function modelsOf(home: string): ModuleRegistration[] {
  const path = join(home, 'package.json')
  const offered = record(readManifest(path)?.['aphrodite'])['models']
  if (offered === undefined) return []
  const entries = Object.entries(record(offered))
  const wrong = entries.find(([, file]) => typeof file !== 'string' || !file.startsWith('./') || !existsSync(join(home, file)))
  if (wrong || entries.length === 0) {
    const what = wrong ? `${JSON.stringify(wrong[1])} for ${wrong[0]}` : JSON.stringify(offered)
    throw modelsError('BAD_MODEL_MODULE', `${path}: aphrodite.models has ${what}; it should give each architecture a file as ./file.js`)
  }
  return entries.map(([architecture, file]) => ({ architecture, module: pathToFileURL(join(home, file as string)).href }))
}

function installed(name: string, folder: string): string | undefined {
  for (let at = folder; ; at = dirname(at)) {
    const home = join(at, 'node_modules', name)
    if (existsSync(join(home, 'package.json'))) return home
    if (at === dirname(at)) return undefined
  }
}

/** Undefined where there is none; somebody else's broken file is not this program's concern. */
function readManifest(path: string): Record<string, unknown> | undefined {
  try {
    return record(JSON.parse(readFileSync(path, 'utf8')))
  } catch {
    return undefined
  }
}

const record = (x: unknown): Record<string, unknown> =>
  typeof x === 'object' && x !== null && !Array.isArray(x) ? (x as Record<string, unknown>) : {}
