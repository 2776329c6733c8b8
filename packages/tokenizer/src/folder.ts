import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { tokenizerError } from './errors.ts'
import { bad } from './json.ts'

/** A file's text, undefined when the folder has none of that name. */
export function readText(folder: string, name: string): string | undefined {
  try {
    return readFileSync(join(folder, name), 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || (error as NodeJS.ErrnoException).code === 'ENOTDIR') return undefined
    throw tokenizerError('NO_TOKENIZER', `${join(folder, name)} cannot be read: ${(error as Error).message}`, { cause: error })
  }
}

/** @throws BAD_TOKENIZER the file does not parse */
export function readJson(folder: string, name: string): unknown {
  const text = readText(folder, name)
  return text === undefined ? undefined : parseJson(text, join(folder, name))
}

export function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw bad(path, `is not JSON: ${(error as Error).message}. The file may be cut off: fetch it again.`, error)
  }
}

/** What to say about a folder without tokenizer.json. */
export function noTokenizer(folder: string): Error {
  let names: string[]
  try {
    names = readdirSync(folder)
  } catch {
    return tokenizerError('NO_TOKENIZER', `${folder} is not a folder that can be read. Name the model's folder.`)
  }
  const other = ['tokenizer.model', 'vocab.json', 'vocab.txt', 'tekken.json', 'spiece.model'].find((name) => names.includes(name))
  const hint = other
    ? `It has ${other}, an older form: convert it once with Hugging Face's transformers (AutoTokenizer.from_pretrained("${folder}").save_pretrained("${folder}"))`
    : 'Add the file of the original model'
  return tokenizerError('NO_TOKENIZER', `${folder} has no tokenizer.json. ${hint}, or name another tokenizer with the option tokenizer.`)
}
