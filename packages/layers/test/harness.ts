import {
  Arena,
  type Communicator,
  contiguousStrides,
  type Device,
  type FloatDType,
  type NamedArray,
  product,
  singleRank,
  type Tensor,
  Workspace,
} from '@aphrodite/tensor'
import { createReferenceDevice, Random } from '@aphrodite/testing'
import { type Env, Layer, Module, walk } from '../src/module.ts'
import { unquantized } from '../src/quantization/unquantized.ts'
import { WeightMap } from '../src/weights.ts'

/** A checkpoint of random numbers, by name and shape. */
export function checkpoint(shapes: Readonly<Record<string, readonly number[]>>, seed = 1): NamedArray[] {
  const random = new Random(seed)
  return Object.entries(shapes).map(([name, shape]) => ({
    name,
    array: { bytes: new Uint8Array(random.normals(product(shape)).buffer), dtype: 'f32', shape, strides: contiguousStrides(shape) },
  }))
}

export const valuesOf = (weights: readonly NamedArray[], name: string): Float32Array =>
  new Float32Array(weights.find((w) => w.name === name)!.array.bytes.slice().buffer)

export interface Bench {
  readonly device: Device
  readonly workspace: Workspace
  readonly env: Env
  floats(values: Float32Array, shape: readonly number[]): Tensor
  ints(values: readonly number[], shape?: readonly number[]): Tensor
}

export function bench(tp: Communicator = singleRank, dtype: FloatDType = 'f32', more: Partial<Env> = {}): Bench {
  const device = createReferenceDevice()
  const workspace = new Workspace(device, 8 << 20)
  const upload = (t: Tensor, values: Float32Array | Int32Array) => {
    device.upload(t, values)
    return t
  }
  return {
    device,
    workspace,
    env: { device, arena: new Arena(device, 1 << 16), tp, dtype, quantization: unquantized, ...more },
    floats: (values, shape) => upload(workspace.empty(shape, dtype), values),
    ints: (values, shape = [values.length]) => upload(workspace.empty(shape, 'i32'), Int32Array.from(values)),
  }
}

export function materialize(root: Module, env: Env): WeightMap {
  const map = new WeightMap()
  for (const [path, m] of walk(root)) if (m instanceof Layer) m.materialize(path, env, map)
  return map
}

/** A module of layers under names, as a model's block is. */
export class Block<T extends Record<string, Module>> extends Module {
  constructor(layers: T) {
    super()
    Object.assign(this, layers)
  }
  static of<T extends Record<string, Module>>(layers: T): Block<T> & T {
    return new Block(layers) as Block<T> & T
  }
}

export const read = (t: Tensor): number[] => [...(t.device.download(t) as Float32Array)]

/** x [rows, k] · w [n, k]ᵀ (+ bias) in float64. */
export function times(x: Float32Array, w: Float32Array, k: number, bias?: Float32Array): number[] {
  const n = w.length / k
  return Array.from({ length: (x.length / k) * n }, (_, i) => {
    let sum = bias ? bias[i % n]! : 0
    for (let l = 0; l < k; l++) sum += x[Math.floor(i / n) * k + l]! * w[(i % n) * k + l]!
    return sum
  })
}

export const worst = (a: readonly number[], b: readonly number[]): number =>
  a.length === b.length ? Math.max(0, ...a.map((x, i) => Math.abs(x - b[i]!))) : Number.NaN
