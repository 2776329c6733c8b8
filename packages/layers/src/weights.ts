import { type DType, type HostArray, isFloat, type NamedArray, type PackedWeight, type Tensor } from '@aphrodite/tensor'
import { layersError } from './errors.ts'

/** A stretch of one axis of a checkpoint tensor. */
export interface Range {
  readonly start: number
  readonly length: number
}

/** Where a checkpoint tensor, or the part of it that this rank needs, goes. */
export interface WeightSlot {
  /** Shape of the whole checkpoint tensor: anything else is an error. */
  readonly shape: readonly number[]
  /** This rank's part, one range an axis. */
  readonly from: readonly Range[]
  readonly write: (part: HostArray) => void
}

/** What a materialised model expects of a checkpoint, by name. */
export class WeightMap {
  readonly slots = new Map<string, WeightSlot[]>()
  readonly #filled = new Set<WeightSlot>()
  readonly #optional = new Set<string>()
  readonly #finalizers: (() => void)[] = []
  #isFilled = false

  /** Whether everything that is expected has been read. */
  get isFilled(): boolean {
    return this.#isFilled
  }

  expect(name: string, slot: WeightSlot): void {
    const list = this.slots.get(name)
    if (list) list.push(slot)
    else this.slots.set(name, [slot])
  }

  /** A plain tensor: `target` has the shape of the part. `shape` and `from` are left out when that is the whole. */
  expectTensor(name: string, target: Tensor, shape: readonly number[] = target.shape, from: readonly Range[] = whole(shape)): void {
    const write = (part: HostArray): void => {
      if (isFloat(target.dtype)) requirePlain(name, part)
      target.device.upload(target, part)
    }
    this.expect(name, { shape, from, write })
  }

  /** A matrix that lands in rows [row, …) and columns [column, …) of a packed weight. */
  expectPacked(
    name: string,
    target: PackedWeight,
    row: number,
    column: number,
    shape: readonly number[],
    from: readonly Range[] = whole(shape),
  ): void {
    const write = (part: HostArray): void => {
      requirePlain(name, part)
      target.memory.device.pack(target, part, row, column)
    }
    this.expect(name, { shape, from, write })
  }

  /** A name that a checkpoint may hold and nobody reads: the head of a tied model. */
  ignore(name: string): void {
    this.#optional.add(name)
  }

  /** Runs when everything is loaded. */
  finally(fn: () => void): void {
    this.#finalizers.push(fn)
  }

  /** Fills every slot exactly once, or says what is missing, what was not expected, what has the wrong shape. */
  fill(checkpoint: Iterable<NamedArray>): void {
    const unexpected: string[] = []
    for (const { name, array } of checkpoint) {
      const slots = this.slots.get(name)
      if (!slots) {
        if (!this.#optional.has(name) && !ALWAYS_IGNORED.test(name)) unexpected.push(name)
        continue
      }
      for (const slot of slots) {
        if (array.shape.length !== slot.shape.length || array.shape.some((n, i) => n !== slot.shape[i])) {
          throw layersError(
            'WEIGHT_SHAPE',
            `${name} has the shape [${array.shape}] in the checkpoint; config.json makes it [${slot.shape}]`,
          )
        }
        if (this.#filled.has(slot))
          throw layersError('WEIGHT_NAMES', `${name} was given twice. A loadWeights that maps names gives each of them once.`)
        if (slot.from.every((range) => range.length > 0)) slot.write(narrowed(array, slot.from))
        this.#filled.add(slot)
      }
    }
    const missing = [...this.slots].filter(([, slots]) => slots.some((s) => !this.#filled.has(s))).map(([name]) => name)
    if (missing.length || unexpected.length) throw layersError('WEIGHT_NAMES', mismatch(missing, unexpected))
    for (const finalize of this.#finalizers) finalize()
    this.#isFilled = true
  }
}

/** A checkpoint under other names, for `loadWeights`; undefined leaves a tensor out. */
export function* renamed(weights: Iterable<NamedArray>, rename: (name: string) => string | undefined): Generator<NamedArray> {
  for (const { name, array } of weights) {
    const to = rename(name)
    if (to !== undefined) yield { name: to, array }
  }
}

/** Buffers that old exports contain and that are computed here. */
const ALWAYS_IGNORED = /(^|\.)rotary_emb\.(inv_freq|cos_cached|sin_cached)$/

const PLAIN: readonly DType[] = ['f32', 'bf16', 'f16', 'f64']

/** Integers and 8-bit floats mean nothing without the scales of a quantised checkpoint: converting them would only look right. */
function requirePlain(name: string, { dtype }: HostArray): void {
  if (!PLAIN.includes(dtype))
    throw layersError(
      'WEIGHT_DTYPE',
      `${name} is ${dtype} in the checkpoint; this layer takes ${PLAIN.join(', ')}. Is quantization_config missing from config.json?`,
    )
}

const whole = (shape: readonly number[]): Range[] => shape.map((length) => ({ start: 0, length }))

function narrowed(array: HostArray, from: readonly Range[]): HostArray {
  const bytesPer =
    array.bytes.byteLength /
    Math.max(
      1,
      array.shape.reduce((a, b) => a * b, 1),
    )
  const offset = from.reduce((sum, r, i) => sum + r.start * array.strides[i]!, 0) * bytesPer
  return { bytes: array.bytes.subarray(offset), dtype: array.dtype, shape: from.map((r) => r.length), strides: array.strides }
}

function mismatch(missing: readonly string[], unexpected: readonly string[]): string {
  const list = (what: string, names: readonly string[]) =>
    names.length ? ` ${what}: ${names.slice(0, 8).join(', ')}${names.length > 8 ? ` and ${names.length - 8} more` : ''}.` : ''
  return `the checkpoint does not match the model.${list('Missing', missing)}${list('Not expected', unexpected)} Is config.json the one of these weights?`
}
