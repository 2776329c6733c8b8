import {
  Arena,
  type Device,
  type DType,
  type FloatDType,
  isFloat,
  type PackedWeight,
  product,
  Tensor,
  type WeightFormat,
} from '@aphrodite/tensor'
import { Random } from '../random.ts'

export interface FloatOptions {
  /** Elements from one index of the first dimension to the next; more than a row leaves gaps. */
  readonly stride?: number | undefined
  readonly mean?: number
  readonly deviation?: number
}

/** A tensor that an op writes, with the gaps between its rows, which it must not touch. */
export interface Output {
  readonly name: string
  readonly whole: Tensor
}

/** Tensors of one case on one device, from a stream of random numbers that is the same on every device. */
export class CaseMemory {
  readonly arena: Arena
  readonly random: Random
  readonly outputs: Output[] = []
  readonly #device: Device

  constructor(device: Device, seed: number) {
    this.#device = device
    this.arena = new Arena(device, 1 << 18)
    this.random = new Random(seed)
  }

  /** Normal numbers; gaps are filled too. */
  floats(shape: readonly number[], dtype: FloatDType, options: FloatOptions = {}): Tensor {
    return this.#floats(shape, dtype, options)[1]
  }

  /** A tensor that the op writes. It holds random numbers, so that an element the op forgets is noticed. */
  output(name: string, shape: readonly number[], dtype: DType, options: FloatOptions = {}): Tensor {
    if (!isFloat(dtype)) {
      const t = this.ints(
        Int32Array.from({ length: product(shape) }, () => 1_000_000 + this.random.below(1000)),
        shape,
      )
      this.outputs.push({ name, whole: t })
      return t
    }
    const [whole, view] = this.#floats(shape, dtype, options)
    this.outputs.push({ name, whole })
    return view
  }

  ints(values: ArrayLike<number>, shape: readonly number[] = [values.length]): Tensor {
    const t = this.arena.empty(shape, 'i32')
    this.#device.upload(t, Int32Array.from(values))
    return t
  }

  values(values: ArrayLike<number>, shape: readonly number[] = [values.length], dtype: FloatDType = 'f32'): Tensor {
    const t = this.arena.empty(shape, dtype)
    this.#device.upload(t, Float32Array.from(values))
    return t
  }

  /** A packed weight of normal numbers, 1 / sqrt(inFeatures) wide. */
  packed(format: WeightFormat, outFeatures: number, inFeatures: number): PackedWeight {
    const weight = this.arena.packed(outFeatures, inFeatures, format)
    const values = this.random.normals(outFeatures * inFeatures, 1 / Math.sqrt(inFeatures))
    const bytes = new Uint8Array(values.buffer)
    this.#device.pack(weight, { bytes, dtype: 'f32', shape: [outFeatures, inFeatures], strides: [inFeatures, 1] }, 0, 0)
    return weight
  }

  release(): void {
    this.arena.release()
  }

  #floats(shape: readonly number[], dtype: FloatDType, { stride, mean = 0, deviation = 1 }: FloatOptions): [Tensor, Tensor] {
    const rows = shape[0]!
    const row = product(shape.slice(1))
    const whole = this.arena.empty([rows, stride ?? row], dtype)
    this.#device.upload(whole, this.random.normals(whole.size, deviation, mean))
    const strides = whole.strides.slice(0, 1)
    for (let d = 1; d < shape.length; d++) strides.push(product(shape.slice(d + 1)))
    return [whole, new Tensor(whole.address, dtype, shape, strides, whole.memory, whole.block)]
  }
}
