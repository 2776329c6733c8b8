import { type CausalLM, ConfigReader, type ModelDefinition } from '@aphrodite/layers'
import { createModel } from '@aphrodite/layers/internal'
import { nearest } from '@aphrodite/tensor'
import { ARCHITECTURES } from './architectures.ts'
import { definitionOf, type Model, pick } from './definition.ts'
import { discoverModels } from './discover.ts'
import { modelsError } from './errors.ts'
import { causeOf, importModule, placeOf } from './import-module.ts'
import type { ModuleRegistration } from './manifest.ts'
import { resolveModule } from './resolve.ts'

export interface RegisterOptions {
  /** Where a package or a relative path is looked for: `import.meta.url` of the caller. Default: the working directory. */
  readonly from?: string | URL
  /**
   * For a class or a definition: a module that exports it (as its default, or under the architecture's name) or registers it when
   * it is imported: `import.meta.url` where that is this one. Other threads and ranks have the model from there.
   */
  readonly module?: string | URL
}

/**
 * Which model serves which architecture. Registered ones go before the built-in ones, later ones before earlier ones. Most
 * programs use the one that this package exports as `ModelRegistry`; a test, or an engine that should know other models than
 * its neighbour, makes its own.
 */
export class ArchitectureRegistry {
  readonly #modules = new Map<string, ModuleRegistration>()
  readonly #models = new Map<string, Model>()
  readonly #rivals = new Map<string, readonly ModuleRegistration[]>()
  #revision = 0

  /**
   * `model`: a class that extends CausalLM, what `defineModel` returns, or a module that exports one (a package name, a path,
   * a URL). A class or a definition lives in this thread alone, unless `module` says where others find it.
   */
  registerModel(architecture: string, model: Model | string, options: RegisterOptions = {}): void {
    const from = options.from ?? process.cwd()
    if (typeof model === 'string') {
      this.#modules.set(architecture, { architecture, module: resolveModule(model, from) })
      this.#models.delete(architecture)
    } else {
      definitionOf(architecture, model, 'registerModel') // a mistake is said here, not when a model is loaded
      this.#models.set(architecture, model)
      if (options.module === undefined) this.#modules.delete(architecture)
      else this.#modules.set(architecture, { architecture, module: resolveModule(String(options.module), from) })
    }
    this.#rivals.delete(architecture)
    this.#revision++
  }

  /** How often registerModel was called. */
  get revision(): number {
    return this.#revision
  }

  /** The registrations that can be made again elsewhere: plain data. */
  registrations(): ModuleRegistration[] {
    return [...this.#modules.values()]
  }

  /** Makes the registrations of another thread's registry. */
  replay(registrations: readonly ModuleRegistration[]): void {
    for (const registration of registrations) {
      if (this.#modules.get(registration.architecture)?.module === registration.module) continue // it may have its class already
      this.#modules.set(registration.architecture, registration)
      this.#models.delete(registration.architecture)
      this.#rivals.delete(registration.architecture)
    }
  }

  /**
   * Registers what a project and its packages offer (`discoverModels`), where nobody has registered something else. Two packages
   * that offer one architecture are an error when it is asked for.
   */
  discover(folder: string = process.cwd()): void {
    const found = new Map<string, ModuleRegistration[]>()
    for (const registration of discoverModels(folder))
      found.set(registration.architecture, [...(found.get(registration.architecture) ?? []), registration])
    for (const [architecture, [first, ...others]] of found) {
      if (this.#modules.has(architecture) || this.#models.has(architecture)) continue
      this.#modules.set(architecture, first!)
      if (others.length > 0) this.#rivals.set(architecture, [first!, ...others])
    }
  }

  /** Architectures that somebody has registered, in alphabetical order. */
  registered(): string[] {
    return [...new Set([...this.#modules.keys(), ...this.#models.keys()])].sort()
  }

  /** The architecture's model is a class or a definition of this thread: an engine in another one cannot have it. */
  isInProcessOnly(architecture: string): boolean {
    return this.#models.has(architecture) && !this.#modules.has(architecture)
  }

  /** What a log says when a registered model is taken, and whether it takes a built-in one's place. Undefined for built-in ones. */
  describe(architecture: string): string | undefined {
    const module = this.#modules.get(architecture)
    if (!module && !this.#models.has(architecture)) return undefined
    const name = module?.package === undefined ? '' : `package ${module.package}, `
    const from = module ? `${name}${placeOf(module.module)}` : 'a class of this program'
    return `${architecture} from ${from}${architecture in ARCHITECTURES ? ', instead of the built-in one' : ''}`
  }

  /** Every architecture that can be loaded, in alphabetical order. */
  architectures(): string[] {
    return [...new Set([...Object.keys(ARCHITECTURES), ...this.registered()])].sort()
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
        `${near ? ` The nearest is ${near}.` : ''} Known: ${known.join(', ')}. Add it with ModelRegistry.registerModel(name, model), or with --plugin.`,
    )
  }

  /** The definition of an architecture, its module imported. Throws UNKNOWN_ARCHITECTURE, BAD_MODEL_MODULE. */
  async resolve(architectures: readonly string[]): Promise<ModelDefinition> {
    const architecture = this.find(architectures)
    const model = this.#models.get(architecture)
    if (model) return definitionOf(architecture, model, 'registerModel')
    const rivals = this.#rivals.get(architecture)
    if (rivals)
      throw modelsError(
        'BAD_MODEL_MODULE',
        `${rivals.map((r) => r.package).join(' and ')} both offer ${architecture}. Say which with --plugin, or with registerModel.`,
      )
    const registered = this.#modules.get(architecture)
    if (!registered) return pick(architecture, await ARCHITECTURES[architecture]!(), `the built-in module of ${architecture}`)
    const exported = await importRegistered(registered)
    const own = this.#models.get(architecture) // a module may register its model when it is imported
    return own ? definitionOf(architecture, own, 'registerModel') : pick(architecture, exported, placeOf(registered.module))
  }

  /** A model of a config.json: declared, without memory and weights. Throws UNKNOWN_ARCHITECTURE, BAD_CONFIG. */
  async create(config: Readonly<Record<string, unknown>>, where = 'config.json'): Promise<CausalLM> {
    const architectures = new ConfigReader(config, where).list('architectures', 'string') ?? []
    return createModel(await this.resolve(architectures), config, where)
  }
}

const quote = (name: string): string => JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name)

const stemOf = (architecture: string): string => architecture.replace(/(ForCausalLM|LMHeadModel)$/, '')

async function importRegistered({ architecture, module, package: name }: ModuleRegistration): Promise<Readonly<Record<string, unknown>>> {
  try {
    return await importModule(module)
  } catch (cause) {
    const owner = name === undefined ? '' : ` of the package ${name}`
    throw modelsError(
      'BAD_MODEL_MODULE',
      `${placeOf(module)}${owner}, registered for ${architecture}, could not be imported: ${causeOf(cause)}`,
      { cause },
    )
  }
}

/**
 * The registry of this thread, which engines use unless they are given another: the one piece of state that outlives an
 * engine, so that a program can say `ModelRegistry.registerModel('X', X)` before it makes any.
 */
export const ModelRegistry: ArchitectureRegistry = new ArchitectureRegistry()
