import { loaderError } from '../errors.ts'
import { chooseWeights, INDEX, SINGLE, shorten } from '../weight-files.ts'
import type { RepoFile } from './client.ts'

/** Which files of a repository are wanted: those that come first, and the weights, which may depend on the index among them. */
export interface Selection {
  readonly small: readonly RepoFile[]
  /** Called when `small` is on disk, with the index's tensors when there is one. */
  readonly weights: (index: ReadonlyMap<string, string> | undefined) => readonly RepoFile[]
  readonly needsIndex: boolean
}

/** What describes a model and its tokenizer; a repository holds much else. */
const SMALL =
  /^(?:[^/]+\.(?:json|jinja|tiktoken)|(?:tokenizer|spiece|sentencepiece[^/]*)\.model|(?:merges|vocab)\.txt|additional_chat_templates\/[^/]+\.jinja)$/
/** Indexes and configurations of weights in other formats. */
const OTHER_FORMATS = /^(?:pytorch_model|tf_model|flax_model)[^/]*\.index\.json$|^consolidated[^/]*\.json$/

/** What a model needs to run: configurations, tokenizer, templates, and the safetensors files of the index or all of them. */
export function selectModel(id: string, files: readonly RepoFile[]): Selection {
  const byName = new Map(files.filter((f) => !f.path.includes('/')).map((f) => [f.path, f]))
  const names = [...byName.keys()]
  const needsIndex = byName.has(INDEX) && !byName.has(SINGLE)
  const pick = (wanted: readonly string[]): RepoFile[] => {
    const missing = wanted.filter((name) => !byName.has(name))
    if (missing.length > 0)
      throw loaderError('HUB_NOT_FOUND', `${id} lacks ${shorten(missing)}, which its ${INDEX} lists. Choose another revision.`)
    return wanted.map((name) => byName.get(name)!)
  }
  if (!names.some((name) => name.endsWith('.safetensors'))) {
    const other = names.filter((name) => /\.(bin|gguf|pt|pth|h5|onnx|msgpack)$/.test(name))
    throw loaderError(
      'HUB_NOT_FOUND',
      `${id} has no safetensors file${other.length > 0 ? `, only ${shorten(other)}` : ''}. Look for a repository of the same model that has.`,
    )
  }
  if (!byName.has('config.json'))
    throw loaderError('HUB_NOT_FOUND', `${id} has no config.json: it is not a model in Hugging Face's layout.`)
  return {
    small: files.filter((f) => SMALL.test(f.path) && !OTHER_FORMATS.test(f.path)),
    weights: (index) => pick(byName.has(SINGLE) ? [SINGLE] : index ? [...new Set(index.values())].sort() : chooseWeights(names)),
    needsIndex,
  }
}

/** The files that match one of the patterns. */
export function selectMatching(id: string, files: readonly RepoFile[], patterns: readonly string[]): Selection {
  const tests = patterns.map(matcher)
  const small = files.filter((f) => tests.some((matches) => matches(f.path)))
  if (small.length === 0) throw loaderError('HUB_NOT_FOUND', `${id} has no file that matches ${patterns.join(', ')}.`)
  return { small, weights: () => [], needsIndex: false }
}

/** `*` stands for any characters. The parts between stars are found from left to right, which is enough and cannot blow up. */
function matcher(pattern: string): (path: string) => boolean {
  const [first = '', ...rest] = pattern.split('*')
  const last = rest.pop()
  if (last === undefined) return (path) => path === pattern
  return (path) => {
    if (!path.startsWith(first)) return false
    let at = first.length
    for (const part of rest) {
      const found = path.indexOf(part, at)
      if (found < 0) return false
      at = found + part.length
    }
    return path.length - last.length >= at && path.endsWith(last)
  }
}
