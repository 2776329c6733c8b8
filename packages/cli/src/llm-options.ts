import { type LLMOptions, ModelRegistry, mainScript, type SamplingParams } from '@aphrodite/llm'
import { cliError } from './errors.ts'
import { ENGINE_GROUPS, SAMPLING } from './flags.ts'
import type { Settings } from './settings.ts'

/** Settings whose names are not the option's name with dashes. */
const RENAMED: Readonly<Record<string, string>> = {
  plugin: 'plugins',
  'kv-cache-size': 'kvCacheBytes',
  'sampling-seed': 'seed',
  'served-model-name': 'servedModelName',
}
const camelCase = (name: string): string => RENAMED[name] ?? name.replace(/-(.)/g, (_, c: string) => c.toUpperCase())

const pick = (settings: Settings, names: readonly string[]): Record<string, unknown> =>
  Object.fromEntries(names.flatMap((name) => (settings.has(name) ? [[camelCase(name), settings.get(name)]] : [])))

/** The options of LLM.create for a command's first positional and its settings. */
export function llmOptions(positionals: readonly string[], settings: Settings, command: string): LLMOptions {
  const [model, ...rest] = positionals
  if (model === undefined)
    throw cliError('BAD_COMMAND', `aphrodite ${command} needs a model: a folder, or a hub id such as Qwen/Qwen3-0.6B`)
  if (rest.length) throw cliError('BAD_COMMAND', `aphrodite ${command} takes one model; "${rest[0]}" is one too many`)
  const names = ENGINE_GROUPS.flatMap((g) => g.flags.map((f) => f.name))
  const plugins = [...((settings.get('plugin') as readonly string[] | undefined) ?? []), ...wrapper()]
  return { model, ...pick(settings, names), ...(plugins.length > 0 && { plugins }) }
}

/** A program that registers classes and then runs this is run again, up to here, where the engine is: a class cannot go there. */
function wrapper(): string[] {
  const script = mainScript()
  return script !== undefined && ModelRegistry.registered().some((a) => ModelRegistry.isInProcessOnly(a)) ? [script] : []
}

export const samplingParams = (settings: Settings): Partial<SamplingParams> =>
  pick(
    settings,
    SAMPLING.flags.map((f) => f.name),
  ) as Partial<SamplingParams>
