import { join } from 'node:path'
import type { FloatDType } from '@aphrodite/tensor'
import { loaderError } from './errors.ts'
import { JsonError, JsonReader, PYTHON_JSON } from './json-reader.ts'
import { readText } from './text-file.ts'

export type Json = Readonly<Record<string, unknown>>

/** config.json of a model. */
export interface ModelConfig {
  /**
   * The file's own keys, and beside them always the newer writing of what transformers 4 wrote otherwise:
   * `rope_parameters` (from `rope_theta`, `rope_scaling`, `rope_local_base_freq`) and `dtype` (from `torch_dtype`).
   */
  readonly json: Json
  readonly path: string
  /** Class names, the first of which is the model's; never empty. */
  readonly architectures: readonly string[]
  /** The type that the weights were trained or saved in; undefined where the file names none that a model is computed in. */
  readonly dtype: FloatDType | undefined
}

/** A description of a model is a few kilobytes; what is larger is something else. */
const LARGEST = 16 << 20

const FLOATS: Readonly<Record<string, FloatDType>> = { float32: 'f32', float16: 'f16', half: 'f16', bfloat16: 'bf16' }

/** Reads `config.json` of a folder. Throws CONFIG_NOT_FOUND, CONFIG_SYNTAX with line and column, or CONFIG_INVALID. */
export function readConfig(directory: string): ModelConfig {
  const path = join(directory, 'config.json')
  const text = read(path)
  if (text === undefined)
    throw loaderError('CONFIG_NOT_FOUND', `${directory} has no config.json. Give the folder that a model was downloaded to or saved in.`)
  return parseConfig(text, path)
}

/** The same from the file's text; `path` is for messages. */
export function parseConfig(text: string, path: string): ModelConfig {
  const json = parseObject(text, path)
  const { architectures } = json
  if (!Array.isArray(architectures) || architectures.length === 0 || !architectures.every((a) => typeof a === 'string' && a !== '')) {
    throw loaderError(
      'CONFIG_INVALID',
      `${path}: architectures should be a list with the model's class name, such as ["LlamaForCausalLM"]; without it nobody knows what this model is.`,
    )
  }
  const dtype = dtypeOf(json)
  const rope = ropeParametersOf(json)
  return {
    json: { ...json, ...(dtype === undefined ? {} : { dtype }), ...(rope === undefined ? {} : { rope_parameters: rope }) },
    path,
    architectures,
    dtype: dtype !== undefined && Object.hasOwn(FLOATS, dtype) ? FLOATS[dtype] : undefined,
  }
}

/** Reads `generation_config.json` of a folder; undefined when there is none. */
export function readGenerationConfig(directory: string): Json | undefined {
  const path = join(directory, 'generation_config.json')
  const text = read(path)
  return text === undefined ? undefined : parseObject(text, path)
}

/**
 * The ids that end a model's answer: `eos_token_id` of generation_config.json, a number or a list, else of config.json, else
 * of its `text_config`. Empty when none of them names any.
 */
export function endTokenIds(config: ModelConfig, generation: Json | undefined): readonly number[] {
  const text = config.json['text_config']
  for (const [where, json] of [
    ['generation_config.json', generation],
    ['config.json', config.json],
    ['config.json: text_config', isObject(text) ? text : undefined],
  ] as const) {
    const value = json?.['eos_token_id']
    if (value === undefined || value === null) continue
    const ids: unknown[] = Array.isArray(value) ? value : [value]
    if (!ids.every((id): id is number => Number.isSafeInteger(id) && (id as number) >= 0)) {
      throw loaderError(
        'CONFIG_INVALID',
        `${where}: eos_token_id should be a token id or a list of them, is ${JSON.stringify(value).slice(0, 80)}.`,
      )
    }
    return [...new Set(ids)]
  }
  return []
}

function parseObject(text: string, path: string): Json {
  let value: unknown
  try {
    value = JsonReader.parse(text, PYTHON_JSON)
  } catch (error) {
    if (!(error instanceof JsonError)) throw error
    throw loaderError(
      'CONFIG_SYNTAX',
      `${path}, line ${error.line}, column ${error.column}: ${error.message}. Correct it, or download it again.`,
    )
  }
  if (!isObject(value)) throw loaderError('CONFIG_INVALID', `${path} should be a JSON object. Is it the right file?`)
  return value
}

const read = (path: string): string | undefined =>
  readText(path, LARGEST, (message, cause) => loaderError('CONFIG_INVALID', message, { cause }))

function dtypeOf(json: Json): string | undefined {
  const written = json['dtype'] ?? json['torch_dtype']
  return typeof written === 'string' ? written.replace(/^torch\./, '') : undefined
}

/** `rope_parameters` as transformers 5 writes it; undefined where the file says nothing about rotation, or says it so already. */
function ropeParametersOf(json: Json): Json | undefined {
  if (isObject(json['rope_parameters'])) return undefined
  const scaling = json['rope_scaling']
  const theta = json['rope_theta']
  if (!isObject(scaling) && (theta === undefined || theta === null)) return undefined
  const { type, rope_type, ...rest } = isObject(scaling) ? scaling : {}
  const parameters = { ...rest, rope_type: rope_type ?? type ?? 'default', ...present(json, 'rope_theta', 'partial_rotary_factor') }
  const local = json['rope_local_base_freq']
  if (local === undefined || local === null) return parameters
  // Gemma 3: layers with a window turn by a theta of their own, and are not scaled.
  return { full_attention: parameters, sliding_attention: { rope_type: 'default', rope_theta: local } }
}

const present = (json: Json, ...keys: string[]): Json =>
  Object.fromEntries(keys.filter((key) => json[key] !== undefined && json[key] !== null).map((key) => [key, json[key]]))

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)
