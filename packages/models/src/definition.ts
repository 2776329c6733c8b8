import type { CausalLM, ConfigReader, ModelDefinition } from '@aphrodite/layers'
import { modelsError } from './errors.ts'

/**
 * A class that is a model by itself. With `static readConfig(reader)` its constructor takes what that returns, without it
 * the reader.
 */
export interface ModelClass {
  new (config: never): CausalLM
  readConfig?(reader: ConfigReader): unknown
}

export type Model = ModelDefinition | ModelClass

/** What a model's module may export as default. */
export type ModelExport = Model | readonly Model[]

const isDefinition = (x: unknown): x is ModelDefinition =>
  typeof x === 'object' && x !== null && 'architectures' in x && 'readConfig' in x && 'create' in x
export const isClass = (x: unknown): x is ModelClass => typeof x === 'function' && typeof x.prototype?.forward === 'function'

/** What a default export says it serves; a class says nothing. */
export const architecturesOf = (x: unknown): readonly string[] => (isDefinition(x) ? x.architectures : [])

/** A definition that serves one architecture, from a definition or a class. Throws BAD_MODEL_MODULE. */
export function definitionOf(architecture: string, model: unknown, from: string): ModelDefinition {
  if (isDefinition(model)) return model
  if (!isClass(model)) {
    throw modelsError(
      'BAD_MODEL_MODULE',
      `${from} gives ${describe(model)} for ${architecture}; it should be a class that extends CausalLM, or what defineModel returns`,
    )
  }
  return {
    architectures: [architecture],
    readConfig: (reader) => (model.readConfig ? model.readConfig(reader) : reader),
    create: (config) => new model(config as never),
  }
}

/** The model of a module that serves an architecture: its default export, one of them, or an export of that name. */
export function pick(architecture: string, exports: Readonly<Record<string, unknown>>, from: string): ModelDefinition {
  const models: readonly unknown[] = [exports['default'] ?? []].flat()
  const serving = models.find((m) => isDefinition(m) && m.architectures.includes(architecture))
  const model = serving ?? exports[architecture] ?? (models.length === 1 ? models[0] : undefined)
  if (model !== undefined) return definitionOf(architecture, model, from)
  throw modelsError(
    'BAD_MODEL_MODULE',
    `${from} exports no model for ${architecture}: it should have one as its default export, in a list there, or under that name`,
  )
}

const describe = (x: unknown): string =>
  typeof x === 'function' ? `the function or class "${x.name}", which has no forward` : x === null ? 'null' : `a ${typeof x}`
