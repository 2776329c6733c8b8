import { ACTIVATION_CODE, type Activation, DTYPE_CODE, type FloatDType, WEIGHT_FORMAT_CODE } from '@aphrodite/tensor'
import { Random } from '@aphrodite/testing'
import type { Native } from '../src/native.ts'

/** What the product of few rows exports besides the ops of every backend. */
export interface FusedNative extends Native {
  fusedLinear(context: number, ...call: number[]): void
  fusedLinearFits(context: number, ...wish: number[]): boolean
  fusedLinearPlan(context: number, ...wish: number[]): [number, number, number]
  fusedLinearBy(context: number, ...planAndCall: number[]): boolean
}

/** Kind, lines, bytes of shared memory: `native/include/linear_small.h`. */
export type Plan = readonly [number, number, number]

export interface FusedCase {
  readonly tokens: number
  readonly n: number
  readonly k: number
  readonly format: 'bf16' | 'f16'
  readonly x: FloatDType
  readonly out: FloatDType
  readonly bias?: FloatDType | undefined
  readonly norm?: FloatDType | undefined
  readonly offset?: number
  readonly residual?: boolean
  readonly activation?: Activation | undefined
  readonly strided?: boolean
}

export const describeFused = (c: FusedCase): string =>
  `[${c.tokens}, ${c.k}] ${c.x} · ${c.format} [${c.n}, ${c.k}] → ${c.out}${c.norm ? `, norm ${c.norm}` : ''}${c.bias ? `, bias ${c.bias}` : ''}` +
  `${c.residual ? ', residual' : ''}${c.activation ? `, ${c.activation}` : ''}${c.strided ? ', strided' : ''}`

const BYTES: Readonly<Record<FloatDType, number>> = { f32: 4, bf16: 2, f16: 2 }
const EPS = 1e-5
/** Half a unit in the last place, relative. */
const ROUNDING: Readonly<Record<FloatDType, number>> = { f32: 2 ** -23, bf16: 2 ** -8, f16: 2 ** -11 }

const erf = (x: number): number => {
  // The series, where it does not cancel too much; beyond, erf is 1 to 2e-8.
  if (Math.abs(x) > 4) return Math.sign(x)
  let term = x
  let sum = x
  for (let i = 1; Math.abs(term) > 1e-17 * Math.abs(sum) && i < 400; i++) {
    term *= -(x * x) / i
    sum += term / (2 * i + 1)
  }
  return (2 / Math.sqrt(Math.PI)) * sum
}
const ACTIVATIONS: Readonly<Record<Activation, (x: number) => number>> = {
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  geluTanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  relu: (x) => Math.max(x, 0),
  relu2: (x) => Math.max(x, 0) ** 2,
}

/** A case with its operands on the device and its result in float64. */
export class FusedLab {
  readonly native: FusedNative
  readonly context: number
  readonly fusedCase: FusedCase
  readonly columns: number
  readonly #addresses: number[] = []
  readonly #out: number
  readonly #outStride: number
  readonly #initial: Float32Array
  readonly #call: readonly number[]
  /** [tokens, columns] and how far off a result may be. */
  readonly expected: Float64Array
  readonly tolerance: Float64Array

  constructor(native: FusedNative, context: number, c: FusedCase, seed: number) {
    this.native = native
    this.context = context
    this.fusedCase = c
    const random = new Random(seed)
    const { tokens, n, k } = c
    const columns = c.activation ? n / 2 : n
    this.columns = columns
    const xStride = k + (c.strided ? 8 : 0)
    this.#outStride = columns + (c.strided ? 3 : 0)
    const x = this.#array(random.normals(tokens * xStride), c.x)
    const weight = this.#weight(random.normals(n * k, 1 / Math.sqrt(k)), c)
    const bias = c.bias ? this.#array(random.normals(n), c.bias) : undefined
    const norm = c.norm ? this.#array(random.normals(k, 0.2, 1 - (c.offset ?? 0)), c.norm) : undefined
    this.#initial = random.normals(tokens * this.#outStride)
    const out = this.#array(this.#initial, c.out)
    this.#out = out.address
    this.#initial = out.values
    const vector = (a: { address: number } | undefined, dtype: FloatDType | undefined, length: number): number[] =>
      a && dtype ? [a.address, DTYPE_CODE[dtype], length] : [0, 0, 0]
    this.#call = [
      ...[out.address, DTYPE_CODE[c.out], tokens, columns, this.#outStride],
      ...[x.address, DTYPE_CODE[c.x], tokens, k, xStride],
      ...[weight.address, WEIGHT_FORMAT_CODE[c.format], n, k],
      ...vector(bias, c.bias, n),
      ...vector(norm, c.norm, k),
      ...[EPS, c.offset ?? 0, c.residual ? 1 : 0, c.activation ? ACTIVATION_CODE[c.activation] : -1],
    ]
    this.expected = new Float64Array(tokens * columns)
    this.tolerance = new Float64Array(tokens * columns)
    for (let t = 0; t < tokens; t++) {
      const row = Float64Array.from(x.values.subarray(t * xStride, t * xStride + k))
      if (norm) {
        const factor = 1 / Math.sqrt(row.reduce((s, v) => s + v * v, 0) / k + EPS)
        for (let i = 0; i < k; i++) row[i]! *= factor * (norm.values[i]! + (c.offset ?? 0))
      }
      const y = new Float64Array(n)
      const slack = new Float64Array(n)
      for (let j = 0; j < n; j++) {
        let sum = bias ? bias.values[j]! : 0
        let size = Math.abs(sum)
        for (let i = 0, at = j * k; i < k; i++, at++) {
          const product = row[i]! * weight.values[at]!
          sum += product
          size += Math.abs(product)
        }
        y[j] = sum
        slack[j] = 1.5e-5 * size
      }
      for (let j = 0; j < columns; j++) {
        let value = y[j]!
        let off = slack[j]!
        if (c.activation) {
          const f = ACTIVATIONS[c.activation]
          const up = y[j + columns]!
          const bend = Math.max(Math.abs(f(value + off) - f(value)), Math.abs(f(value - off) - f(value)))
          off = bend * Math.abs(up) + (Math.abs(f(value)) + bend) * slack[j + columns]! + 1e-6 * Math.abs(f(value) * up) + 1e-30
          value = f(value) * up
        }
        if (c.residual) value += this.#initial[t * this.#outStride + j]!
        this.expected[t * columns + j] = value
        this.tolerance[t * columns + j] = off + ROUNDING[c.out] * Math.abs(value) + 1e-7
      }
    }
  }

  get wish(): number[] {
    const { tokens, format, n, k, x, out, norm, residual, activation } = this.fusedCase
    const flags = [norm ? 1 : 0, residual ? 1 : 0, activation ? ACTIVATION_CODE[activation] : -1]
    return [tokens, WEIGHT_FORMAT_CODE[format], n, k, DTYPE_CODE[x], DTYPE_CODE[out], ...flags]
  }
  get fits(): boolean {
    return this.native.fusedLinearFits(this.context, ...this.wish)
  }

  /** The result [tokens, outStride], by fusedLinear's own plan or by another; undefined where that cannot be done. */
  run(plan?: Plan): Float32Array | undefined {
    const poison = this.fusedCase.residual ? this.#initial : new Float32Array(this.#initial.length).fill(Number.NaN)
    const code = DTYPE_CODE[this.fusedCase.out]
    this.native.upload(this.context, this.#out, code, poison, DTYPE_CODE.f32, 1, poison.length, 1, 1)
    if (!plan) this.native.fusedLinear(this.context, ...this.#call)
    else if (!this.native.fusedLinearBy(this.context, ...plan, ...this.#call)) return undefined
    return this.#download(this.#out, this.fusedCase.out, poison.length)
  }

  /** What is wrong with a result; undefined: nothing. */
  failure(result: Float32Array): string | undefined {
    const { tokens } = this.fusedCase
    let wrong = 0
    let first = ''
    for (let t = 0; t < tokens; t++)
      for (let j = 0; j < this.#outStride; j++) {
        const got = result[t * this.#outStride + j]!
        if (j >= this.columns) {
          // Between rows nothing may change.
          const before = this.fusedCase.residual ? this.#initial[t * this.#outStride + j]! : Number.NaN
          if (!Object.is(got, before)) first ||= `token ${t}: element ${j}, behind the row's end, became ${got}`
          continue
        }
        const at = t * this.columns + j
        if (Math.abs(got - this.expected[at]!) <= this.tolerance[at]!) continue
        wrong++
        first ||= `token ${t}, column ${j}: ${got}, not ${this.expected[at]} ± ${this.tolerance[at]}`
      }
    return first ? `${wrong} of ${tokens * this.columns} wrong; ${first}` : undefined
  }

  release(): void {
    for (const address of this.#addresses) this.native.release(this.context, address)
  }

  #allocate(bytes: number): number {
    const address = this.native.allocate(this.context, bytes)
    if (address === 0) throw new Error(`no ${bytes} bytes of GPU memory`)
    this.#addresses.push(address)
    return address
  }
  #download(address: number, dtype: FloatDType, length: number): Float32Array {
    const values = new Float32Array(length)
    this.native.download(this.context, address, DTYPE_CODE[dtype], values, DTYPE_CODE.f32, 1, length, 1, 1)
    return values
  }
  /** Values on the device, and what rounding left of them. */
  #array(values: Float32Array, dtype: FloatDType): { address: number; values: Float32Array } {
    const address = this.#allocate(values.length * BYTES[dtype])
    this.native.upload(this.context, address, DTYPE_CODE[dtype], values, DTYPE_CODE.f32, 1, values.length, 1, 1)
    return { address, values: this.#download(address, dtype, values.length) }
  }
  #weight(values: Float32Array, { format, n, k }: FusedCase): { address: number; values: Float32Array } {
    const address = this.#allocate(n * Math.ceil(k / 32) * 32 * 2)
    const code = WEIGHT_FORMAT_CODE[format]
    this.native.pack(this.context, address, code, n, k, values, DTYPE_CODE.f32, n, k, k, 1, 0, 0)
    const rounded = new Float32Array(n * k)
    this.native.unpack(this.context, address, code, n, k, rounded)
    return { address, values: rounded }
  }
}
