import { createRequire } from 'node:module'
import { isAbsolute } from 'node:path'
import { pathToFileURL } from 'node:url'
import { findPlugin, loadPlugins, ModelRegistry, type ModuleRegistration, type Plugin } from '@aphrodite/models'
import { llmError } from './errors.ts'

/** What another thread, process or machine needs to know the same models: plain values. */
export interface Registrations {
  readonly modules: readonly ModuleRegistration[]
  readonly plugins: readonly Plugin[]
  /** Architectures that are classes of the program, for which it is run again there (as one of `plugins`). */
  readonly classes: readonly string[]
}

/** What this program has registered, what its project's packages offer, and the plugins that it was asked for. Throws BAD_PLUGIN. */
export function collectRegistrations(plugins: readonly string[]): Registrations {
  ModelRegistry.discover()
  const found = plugins.map((plugin) => findPlugin(plugin))
  const runsAgain = found.some(isProgram)
  return {
    modules: ModelRegistry.registrations(),
    plugins: found,
    classes: runsAgain ? ModelRegistry.registered().filter((a) => ModelRegistry.isInProcessOnly(a)) : [],
  }
}

const isProgram = ({ module }: Plugin): boolean => module !== undefined && module === mainScript()

/** Registers the same here. Plugins are imported, and a broken one ends the start. Throws BAD_PLUGIN, BAD_MODEL_MODULE. */
export async function applyRegistrations({ modules, plugins, classes }: Registrations): Promise<void> {
  ModelRegistry.replay(modules)
  // Where the program itself runs, it has registered what it has.
  await loadPlugins(
    ModelRegistry,
    plugins.filter((plugin) => !isProgram(plugin)),
  )
  const lost = classes.filter((a) => !ModelRegistry.registered().includes(a))
  if (lost.length > 0)
    throw llmError(
      'NOT_SUPPORTED',
      `the class of ${lost.join(', ')} is registered by the program, which was run again for the engine and did not register it there. ${BY_MODULE}`,
    )
}

const BY_MODULE =
  'Register a module that exports it, ModelRegistry.registerModel(name, "./model.js", { from: import.meta.url }), ' +
  'or say which one does: registerModel(name, Class, { module: import.meta.url }).'

/**
 * Whether the engine has to run in this thread, which alone has the model's class. Throws NOT_SUPPORTED where several ranks are
 * asked for, which are processes that this one starts.
 */
export function isTiedToThisThread(architectures: readonly string[], { plugins }: Registrations, startsRanks: boolean): boolean {
  const known = architectures.find((a) => ModelRegistry.architectures().includes(a))
  if (known === undefined || !ModelRegistry.isInProcessOnly(known)) return false
  if (plugins.some(isProgram)) return false
  if (startsRanks)
    throw llmError(
      'NOT_SUPPORTED',
      `${known} is registered as a class of this program, and tensorParallelSize asks for ranks, which are processes of their own and do not have it. ${BY_MODULE}`,
    )
  return true
}

/** The program's own module: what a wrapper of the command line is run again by, where the engine is. */
export function mainScript(): string | undefined {
  const [, script] = process.argv
  if (script === undefined || !isAbsolute(script)) return undefined
  try {
    return pathToFileURL(createRequire(script).resolve(script)).href // with its ending, through links
  } catch {
    return undefined
  }
}
