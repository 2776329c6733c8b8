import { existsSync, statSync } from 'node:fs'
import { isAbsolute, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { architecturesOf, isClass, type Model } from './definition.ts'
import { modelsError } from './errors.ts'
import { causeOf, importModule, placeOf } from './import-module.ts'
import { installed, type ModuleRegistration, modelsOf, readManifest } from './manifest.ts'
import type { ArchitectureRegistry } from './registry.ts'
import { resolveModule } from './resolve.ts'

/** A plugin that was found, in plain data: what another thread or process can load (`loadPlugins`). */
export interface Plugin {
  /** As it was asked for. */
  readonly name: string
  /** Its package's name, and version, where it is one. */
  readonly package?: string
  /** What its package.json offers; or else a module to import, which registers models or exports them. */
  readonly models?: readonly ModuleRegistration[]
  readonly module?: string
}

/** Finds a plugin by package name, path or URL, as seen from a folder. Imports nothing. Throws BAD_PLUGIN. */
export function findPlugin(name: string, folder: string = process.cwd()): Plugin {
  try {
    const path = pathOf(name, folder)
    if (path !== undefined && !statSync(path).isDirectory()) return { name, module: pathToFileURL(path).href }
    const home = path ?? installed(name, folder)
    const manifest = home === undefined ? undefined : readManifest(join(home, 'package.json'))
    const models = home === undefined ? undefined : modelsOf(home)
    const titled = { name, ...(manifest?.['name'] !== undefined && { package: [manifest['name'], manifest['version']].join(' ').trim() }) }
    if (models) return { ...titled, models }
    return { ...titled, module: path === undefined ? resolveModule(name, folder) : entryOf(path, manifest) }
  } catch (cause) {
    throw modelsError('BAD_PLUGIN', `the plugin ${JSON.stringify(name)}: ${causeOf(cause)}`, { cause })
  }
}

/** The file or folder that is meant; undefined for what can only be a package, or a URL of another kind. */
function pathOf(name: string, folder: string): string | undefined {
  if (/^(data|node):/.test(name)) return undefined
  const path = name.startsWith('file:') ? fileURLToPath(name) : resolve(folder, name)
  const meant = isAbsolute(name) || /^(\.|file:)/.test(name)
  if (existsSync(path) && (meant || installed(name, folder) === undefined)) return path
  if (meant) throw modelsError('BAD_PLUGIN', `there is no file or folder ${path}`)
  return undefined
}

function entryOf(home: string, manifest: Readonly<Record<string, unknown>> | undefined): string {
  const exports = manifest?.['exports']
  const main = typeof exports === 'string' ? exports : manifest?.['main']
  const entry = [main, 'index.js', 'index.mjs'].find((file): file is string => typeof file === 'string' && existsSync(join(home, file)))
  if (entry !== undefined) return pathToFileURL(join(home, entry)).href
  throw modelsError('BAD_PLUGIN', `${home} is a folder without "aphrodite": { "models": … } in its package.json, and without an entry`)
}

/** Imports plugins and registers their models. Throws BAD_PLUGIN with the package, the file and the cause. */
export async function loadPlugins(registry: ArchitectureRegistry, plugins: readonly Plugin[]): Promise<void> {
  for (const plugin of plugins) {
    const file = plugin.module ?? plugin.models?.[0]?.module ?? ''
    try {
      if (plugin.models) await loadOffered(registry, plugin.models)
      else await loadModule(registry, plugin.module!)
    } catch (cause) {
      const what = plugin.package === undefined ? plugin.name : `${plugin.name} (package ${plugin.package})`
      const message = causeOf(cause)
      const where = message.includes(placeOf(file)) ? '' : ` ${placeOf(file)}:`
      throw modelsError('BAD_PLUGIN', `the plugin ${what}:${where} ${message}`, { cause })
    }
  }
}

/** Every module of a plugin that was asked for by name is imported, so that a broken one is said at the start. */
async function loadOffered(registry: ArchitectureRegistry, models: readonly ModuleRegistration[]): Promise<void> {
  registry.replay(models)
  for (const { architecture } of models) await registry.resolve([architecture])
}

async function loadModule(registry: ArchitectureRegistry, module: string): Promise<void> {
  const before = registry.revision
  const exported = await importModule(module)
  const defined = [exported['default'] ?? []].flat().flatMap((model) => architecturesOf(model).map((a) => [a, model as Model] as const))
  const named = Object.entries(exported).filter((e): e is [string, Model] => e[0].endsWith('ForCausalLM') && isClass(e[1]))
  // What is defined knows its config and its checkpoints; a class under its architecture's name is taken where nothing defines it.
  for (const [architecture, model] of new Map([...named, ...defined])) registry.registerModel(architecture, model, { module })
  // Imported once more, for another engine of this thread, it has nothing left to do.
  const known = LOADED.get(registry) ?? new Set()
  LOADED.set(registry, known)
  if (registry.revision > before) known.add(module)
  if (!known.has(module))
    throw modelsError(
      'BAD_PLUGIN',
      `${placeOf(module)} registers no model. It should call ModelRegistry.registerModel whenever it is imported, or export what defineModel returns as its default.` +
        ' If it does: does it have a copy of @aphrodite/models of its own? A plugin has it as a peer dependency.',
    )
}

/** Modules that have registered something, by the registry that they did it in. */
const LOADED = new WeakMap<ArchitectureRegistry, Set<string>>()
