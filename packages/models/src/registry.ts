import { type CausalLM, ConfigReader, type ModelDefinition } from '@aphrodite/layers'
import { nearest } from '@aphrodite/tensor'
import { ARCHITECTURES } from './architectures.ts'
import { definitionOf, type Model, pick } from './definition.ts'
import { discoverModels } from './discover.ts'
import { modelsError } from './errors.ts'
import { resolveModule } from './resolve.ts'

/** A registration that another thread or process can make again: `registry.replay([…])`. */
export interface ModuleRegistration {
  readonly architecture: string
  /** A URL for `import()`. */
  readonly module: string
}

export interface RegisterOptions {
  /** Where a package or a relative path is looked for: `import.meta.url` of the caller. Default: the working directory. */
  readonly from?: string | URL
}

/**
 * Which model serves which architecture. Registered ones go before the built-in ones, later ones before earlier ones. Most
 * programs use the one that this package exports as `ModelRegistry`; a test, or an engine that should know other models than
 * its neighbour, makes its own.
 */
export class ArchitectureRegistry {
  readonly #modules = new Map<string, ModuleRegistration>()
  readonly #models = new Map<string, Model>()

  /**
   * `model`: a class that extends CausalLM, what `defineModel` returns, or a module that exports one (a package name, a path,
   * a URL). Only the last can follow an engine to its own thread or to other ranks: the other two live in this thread alone.
   */
  registerModel(architecture: string, model: Model | string, options: RegisterOptions = {}): void {
    if (typeof model === 'string') {
      this.#modules.set(architecture, { architecture, module: resolveModule(model, options.from ?? process.cwd()) })
      this.#models.delete(architecture)
    } else {
      definitionOf(architecture, model, 'registerModel') // a mistake is said here, not when a model is loaded
      this.#models.set(architecture, model)
      this.#modules.delete(architecture)
    }
  }

  /** The registrations that can be made again elsewhere: plain data. */
  registrations(): ModuleRegistration[] {
    return [...this.#modules.values()]
  }

  /** Makes the registrations of another thread's registry. */
  replay(registrations: readonly ModuleRegistration[]): void {
    for (const { architecture, module } of registrations) this.registerModel(architecture, module)
  }

  /** Registers what the packages of a project offer (`discoverModels`), where nobody has registered something else. */
  discover(folder: string = process.cwd()): void {
    const taken = new Set([...this.#modules.keys(), ...this.#models.keys()])
    this.replay(discoverModels(folder).filter((r) => !taken.has(r.architecture)))
  }

  /** The architecture's model is a class or a definition of this thread: an engine in another one cannot have it. */
  isInProcessOnly(architecture: string): boolean {
    return this.#models.has(architecture)
  }

  /** Every architecture that can be loaded, in alphabetical order. */
  architectures(): string[] {
    return [...new Set([...Object.keys(ARCHITECTURES), ...this.#modules.keys(), ...this.#models.keys()])].sort()
  }

  /** The first of config.json's architectures that is known here. Throws UNKNOWN_ARCHITECTURE with the nearest one that is. */
  find(architectures: readonly string[]): string {
    const known = this.architectures()
    const found = architectures.find((a) => known.includes(a))
    if (found !== undefined) return found
    const asked = architectures[0] ?? ''
    // What all names end in makes none of them near.
    const stems = new Map(known.map((name) => [stemOf(name), name]))
    const near = asked && stems.get(nearest(stemOf(asked), stems.keys()) ?? '')
    throw modelsError(
      'UNKNOWN_ARCHITECTURE',
      `no model serves ${architectures.length ? architectures.slice(0, 4).map(quote).join(' or ') : 'a config.json without architectures'}.` +
        `${near ? ` The nearest is ${near}.` : ''} Known: ${known.join(', ')}. Add it with ModelRegistry.registerModel(name, model).`,
    )
  }

  /** The definition of an architecture, its module imported. */
  async resolve(architectures: readonly string[]): Promise<ModelDefinition> {
    const architecture = this.find(architectures)
    const model = this.#models.get(architecture)
    if (model) return definitionOf(architecture, model, 'registerModel')
    const registered = this.#modules.get(architecture)
    if (!registered) return pick(architecture, await ARCHITECTURES[architecture]!(), `the built-in module of ${architecture}`)
    return pick(architecture, await importModel(registered), registered.module)
  }

  /** A model of a config.json: declared, without memory and weights. Throws UNKNOWN_ARCHITECTURE, BAD_CONFIG. */
  async create(config: Readonly<Record<string, unknown>>, where = 'config.json'): Promise<CausalLM> {
    const reader = new ConfigReader(config, where)
    const definition = await this.resolve(reader.list('architectures', 'string') ?? [])
    return definition.create(definition.readConfig(reader))
  }
}

const quote = (name: string): string => JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name)

const stemOf = (architecture: string): string => architecture.replace(/(ForCausalLM|LMHeadModel)$/, '')

async function importModel({ architecture, module }: ModuleRegistration): Promise<Record<string, unknown>> {
  try {
    return (await import(module)) as Record<string, unknown>
  } catch (cause) {
    throw modelsError('BAD_MODEL_MODULE', `${module}, registered for ${architecture}, could not be imported: ${(cause as Error).message}`, {
      cause,
    })
  }
}

/**
 * The registry of this thread, which engines use unless they are given another: the one piece of state that outlives an
 * engine, so that a program can say `ModelRegistry.registerModel('X', X)` before it makes any.
 */
export const ModelRegistry: ArchitectureRegistry = new ArchitectureRegistry()
