import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Checkpoint, openCheckpoint, readConfig } from '@aphrodite/loader'
import type { HostArray } from '@aphrodite/tensor'
import { readSafetensors } from '@aphrodite/testing'

const root = fileURLToPath(new URL('../fixtures', import.meta.url))
const foldersOf = (group: string) =>
  readdirSync(join(root, group), { withFileTypes: true }).flatMap((e) => (e.isDirectory() ? [`${group}/${e.name}`] : []))

/** `hf`: every family as its checkpoints are published. `variants`: sizes, keys and spellings that those do not have. */
export const FIXTURES = [...foldersOf('hf'), ...foldersOf('variants')]

/** What Hugging Face computed for one prompt, in float32. */
export interface ReferencePrompt {
  readonly prompt: number[]
  /** By position; the longest prompts have the last alone. */
  readonly logits: ReadonlyMap<number, Float32Array>
  readonly greedy: number[]
  /** Between the two best logits at each step of `greedy`. */
  readonly gap: Float32Array
}

/**
 * How far logits may be off with a cache of 8-bit floats, which round each key and value by up to 2^-4 and 2^-3. Measured: up to
 * 0.10 and 0.27 (gemma2-no-caps), half of that for most.
 */
export const EIGHT_BIT_BOUNDS = { f8e4m3: 0.15, f8e5m2: 0.35 }

export interface Fixture {
  readonly directory: string
  readonly config: Readonly<Record<string, unknown>>
  /** To be closed. */
  readonly weights: Checkpoint
  readonly prompts: ReferencePrompt[]
}

/** NTK that follows the length cannot be compared once a sequence outgrows the original 64 positions. */
const compared = (name: string): number[] => (name === 'hf/llama-rope-dynamic' ? [0, 1] : [0, 1, 2])

export function readFixture(name: string): Fixture {
  const directory = join(root, name)
  const arrays = readSafetensors(join(directory, 'reference.safetensors'))
  return {
    directory,
    config: readConfig(directory).json,
    weights: openCheckpoint(directory),
    prompts: compared(name).map((k) => {
      const prompt = [...ints(arrays[`prompt.${k}`]!)]
      const logits = arrays[`logits.${k}`]!
      const [rows, vocab] = logits.shape as [number, number]
      const values = floats(logits)
      return {
        prompt,
        logits: new Map(Array.from({ length: rows }, (_, i) => [prompt.length - rows + i, values.subarray(i * vocab, (i + 1) * vocab)])),
        greedy: [...ints(arrays[`greedy.${k}`]!)],
        gap: floats(arrays[`gap.${k}`]!),
      }
    }),
  }
}

const ints = ({ bytes }: HostArray) => new Int32Array(bytes.slice().buffer)
const floats = ({ bytes }: HostArray) => new Float32Array(bytes.slice().buffer)

/** ‖x - y‖ / ‖y‖; NaN anywhere gives NaN, which no bound accepts. */
export function relativeError(x: Float32Array, y: Float32Array): number {
  if (x.length !== y.length) return Number.NaN
  let difference = 0
  let size = 0
  for (let i = 0; i < y.length; i++) {
    difference += (x[i]! - y[i]!) ** 2
    size += y[i]! ** 2
  }
  return Math.sqrt(difference / size)
}
