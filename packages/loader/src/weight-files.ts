import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { loaderError } from './errors.ts'
import { JsonError, JsonReader, quote, STRICT_JSON } from './json-reader.ts'
import { readText } from './text-file.ts'

/** Which files of a folder hold the weights, and which tensors an index promises in which of them. */
export interface WeightFiles {
  /** File names in the order in which they are read. */
  readonly names: readonly string[]
  /** Tensor name to file name; undefined without an index. */
  readonly index: ReadonlyMap<string, string> | undefined
}

export const SINGLE = 'model.safetensors'
export const INDEX = 'model.safetensors.index.json'

/** An index lists names, nothing else: beyond this it is not one. */
const LARGEST_INDEX = 256 << 20

/** `model.safetensors`, else what `model.safetensors.index.json` lists, else every safetensors file of the folder. */
export function findWeightFiles(directory: string): WeightFiles {
  const names = list(directory)
  if (names.includes(SINGLE)) return { names: [SINGLE], index: undefined }
  if (names.includes(INDEX)) return indexed(directory, names)
  const found = chooseWeights(names)
  if (found.length === 0) throw none(directory, names)
  checkNumbered(directory, found)
  return { names: found, index: undefined }
}

/** The safetensors files that are a model's own weights, sorted, of a list of names. */
export function chooseWeights(names: readonly string[]): string[] {
  const all = names.filter((name) => name.endsWith('.safetensors')).sort()
  // The same weights in Mistral's own naming, and adapters, lie beside a model.
  const own = all.filter((name) => !/^(consolidated|adapter_)/.test(name))
  return own.length > 0 ? own : all
}

/** A map of tensor names to file names, from the text of an index. Throws CHECKPOINT_INDEX. */
export function parseIndex(text: string, path: string): ReadonlyMap<string, string> {
  const map = new Map<string, string>()
  let found = false
  try {
    const reader = new JsonReader(text, STRICT_JSON)
    reader.object((key) => {
      if (key !== 'weight_map') {
        reader.value(1)
        return
      }
      found = true
      reader.object((tensor) => map.set(tensor, reader.string()))
    })
    reader.end()
  } catch (error) {
    if (!(error instanceof JsonError)) throw error
    throw loaderError('CHECKPOINT_INDEX', `${path}, line ${error.line}, column ${error.column}: ${error.message}. Download it again.`)
  }
  if (!found || map.size === 0) throw loaderError('CHECKPOINT_INDEX', `${path} has no weight_map with tensors in it. Download it again.`)
  for (const [tensor, file] of map) {
    // A name with a folder in it could be any file of this machine.
    if (!/^[^/\\\0]+\.safetensors$/.test(file) || file.startsWith('.')) {
      throw loaderError(
        'CHECKPOINT_INDEX',
        `${path} puts tensor ${quote(tensor)} into ${quote(file)}, which is not the plain name of a safetensors file in the same folder.`,
      )
    }
  }
  return map
}

function indexed(directory: string, names: readonly string[]): WeightFiles {
  const path = join(directory, INDEX)
  const text = readText(path, LARGEST_INDEX, (message, cause) => loaderError('CHECKPOINT_INDEX', message, { cause }))
  if (text === undefined) throw loaderError('CHECKPOINT_INDEX', `${path} leads to a file that does not exist. Is the download complete?`)
  const index = parseIndex(text, path)
  const shards = [...new Set(index.values())].sort()
  const missing = shards.filter((name) => !names.includes(name))
  if (missing.length > 0) {
    throw loaderError(
      'CHECKPOINT_SHARD',
      `${directory} lacks ${shorten(missing)}, which ${INDEX} lists (${missing.length} of ${shards.length} shards). Download them.`,
    )
  }
  return { names: shards, index }
}

/** `…-00002-of-00005.safetensors` without an index: the names themselves say how many there should be. */
function checkNumbered(directory: string, names: readonly string[]): void {
  for (const name of names) {
    const [, stem, , total] = /^(.*)-(\d{5})-of-(\d{5})\.safetensors$/.exec(name) ?? []
    if (stem === undefined || total === undefined) continue
    const missing: string[] = []
    for (let i = 1; i <= Number(total) && missing.length < 9; i++) {
      const sibling = `${stem}-${String(i).padStart(5, '0')}-of-${total}.safetensors`
      if (!names.includes(sibling)) missing.push(sibling)
    }
    if (missing.length > 0) throw loaderError('CHECKPOINT_SHARD', `${directory} has ${name}, but lacks ${shorten(missing)}. Download them.`)
  }
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    const why = code === 'ENOENT' ? 'does not exist' : code === 'ENOTDIR' ? 'is not a folder' : `cannot be read: ${message}`
    throw loaderError(
      'CHECKPOINT_NOT_FOUND',
      `the model folder ${directory} ${why}. Give a folder with config.json and safetensors files.`,
      { cause },
    )
  }
}

function none(directory: string, names: readonly string[]): Error {
  const other = names.filter((name) => /\.(bin|pt|pth|gguf|onnx|h5|msgpack)$/.test(name))
  const todo = other.length > 0 ? `It has ${shorten(other)}: convert that to safetensors.` : 'Give a folder with model.safetensors.'
  return loaderError('CHECKPOINT_NOT_FOUND', `${directory} has no safetensors file. ${todo}`)
}

export const shorten = (names: readonly string[]): string =>
  names.length > 4 ? `${names.slice(0, 4).join(', ')} and ${names.length - 4} more` : names.join(', ')
