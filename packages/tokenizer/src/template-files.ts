import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TokenizerConfig } from './config.ts'
import { tokenizerError } from './errors.ts'
import { readJson, readText } from './folder.ts'

/**
 * The chat templates of a model's folder: `chat_template.jinja` with `additional_chat_templates/`, else
 * `chat_template.json`, else tokenizer_config.json's `chat_template`.
 *
 * @param config that of the folder
 * @param given instead: a template, the path of one, or the name of one of the model's to make the default
 * @returns them by name; undefined when there is none
 * @throws CHAT_TEMPLATE `given` is none of these
 */
export function readTemplates(folder: string, config: TokenizerConfig, given?: string): Record<string, string> | undefined {
  const sources = given !== undefined && isTemplate(given) ? undefined : templatesOf(folder, config)
  return given === undefined ? sources : { ...sources, default: sources?.[given] ?? readGiven(given, Object.keys(sources ?? {})) }
}

/** Whether a string is a template rather than the name of one or of a file. */
export const isTemplate = (text: string): boolean => /\{[{%#]/.test(text)

/** `bos_token` and the like, as templates name them. */
export function templateVariables(config: TokenizerConfig): Record<string, unknown> {
  const variables: Record<string, unknown> = Object.fromEntries(config.specialTokens)
  if (config.additionalSpecialTokens.length > 0) variables['additional_special_tokens'] = config.additionalSpecialTokens
  return variables
}

function readGiven(given: string, names: readonly string[]): string {
  if (isTemplate(given)) return given
  try {
    return readFileSync(given, 'utf8')
  } catch (error) {
    const known = names.length > 0 ? ` The model's own are named ${names.join(', ')}.` : ''
    throw tokenizerError(
      'CHAT_TEMPLATE',
      `chatTemplate is ${JSON.stringify(given.slice(0, 200))}, which is neither a template nor a file that can be read (${(error as Error).message}).${known}`,
      { cause: error },
    )
  }
}

function templatesOf(folder: string, config: TokenizerConfig): Record<string, string> | undefined {
  const jinja = readText(folder, 'chat_template.jinja')
  if (jinja !== undefined) return { ...additional(join(folder, 'additional_chat_templates')), default: jinja }
  const json = readJson(folder, 'chat_template.json')
  const fromFile = json !== null && typeof json === 'object' ? (json as { chat_template?: unknown }).chat_template : undefined
  return named(fromFile ?? config.chatTemplate)
}

function additional(folder: string): Record<string, string> {
  let names: string[]
  try {
    names = readdirSync(folder)
  } catch {
    return {}
  }
  return Object.fromEntries(
    names
      .filter((name) => name.endsWith('.jinja'))
      .map((name) => [name.slice(0, -'.jinja'.length), readFileSync(join(folder, name), 'utf8')]),
  )
}

/** A template, or `[{ "name": "default", "template": … }, …]`. */
function named(value: unknown): Record<string, string> | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value === 'string') return { default: value }
  const bad = () =>
    tokenizerError(
      'CHAT_TEMPLATE',
      'tokenizer_config.json: chat_template must be a template or a list of { "name", "template" }; give one with the option chatTemplate.',
    )
  if (!Array.isArray(value)) throw bad()
  return Object.fromEntries(
    value.map((entry: unknown) => {
      const { name, template } = (entry ?? {}) as { name?: unknown; template?: unknown }
      if (typeof name !== 'string' || typeof template !== 'string') throw bad()
      return [name, template]
    }),
  )
}
