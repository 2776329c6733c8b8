import { contiguousStrides, type DType, isFloat, product, type Tensor, tensorError } from '@aphrodite/tensor'
import { testingError } from '../errors.ts'
import { type Elements, isElement, type ReferenceMemory } from './memory.ts'

/** Reads and writes tensors as row-major float64 arrays, and checks what an op is given. */
export class Views {
  readonly memory: ReferenceMemory
  constructor(memory: ReferenceMemory) {
    this.memory = memory
  }

  /** All elements in row-major order. */
  read(t: Tensor): Float64Array {
    const values = new Float64Array(t.size)
    this.#each(t, (elements, from, to, count) => {
      for (let i = 0; i < count; i++) values[to + i] = elements.get(from + i)
    })
    return values
  }

  /** Stores row-major values, each rounded once to the tensor's dtype. */
  write(t: Tensor, values: ArrayLike<number>): void {
    this.#each(t, (elements, from, to, count) => {
      for (let i = 0; i < count; i++) elements.set(from + i, values[to + i]!)
    })
  }

  /** Calls fn for every run of contiguous elements: its place in memory, its place in row-major order, its length. */
  #each(t: Tensor, fn: (elements: Elements, from: number, to: number, count: number) => void): void {
    if (!isElement(t.dtype)) throw testingError('BAD_DTYPE', `the reference device has no arithmetic for ${t.dtype}`)
    const size = t.size
    if (size === 0) return
    const extent = t.shape.reduce((sum, n, d) => sum + (n - 1) * t.strides[d]!, 1)
    const elements = this.memory.elements(t.address, t.dtype, extent)
    const packed = contiguousStrides(t.shape)
    let inner = t.shape.length
    while (inner > 0 && (t.shape[inner - 1] === 1 || t.strides[inner - 1] === packed[inner - 1])) inner--
    const run = product(t.shape.slice(inner))
    for (let to = 0; to < size; to += run) {
      let from = 0
      for (let d = 0, rest = to; d < inner; d++) {
        const place = Math.floor(rest / packed[d]!)
        rest -= place * packed[d]!
        from += place * t.strides[d]!
      }
      fn(elements, from, to, run)
    }
  }
}

/** Throws BAD_SHAPE unless the shapes are equal; -1 stands for any size. */
export function requireShape(op: string, name: string, t: Tensor, shape: readonly number[]): void {
  if (t.shape.length !== shape.length || shape.some((n, i) => n !== -1 && n !== t.shape[i]))
    throw tensorError('BAD_SHAPE', `${op}: ${name} is [${t.shape}], it should be [${shape.map((n) => (n < 0 ? 'any' : n))}]`)
}

export function requireThat(op: string, ok: boolean, what: string): void {
  if (!ok) throw tensorError('BAD_SHAPE', `${op}: ${what}`)
}

export function requireDtype(op: string, dtype: DType, tensors: Readonly<Record<string, Tensor | undefined>>): void {
  for (const [name, t] of Object.entries(tensors))
    if (t && t.dtype !== dtype) throw testingError('BAD_DTYPE', `${op}: ${name} is ${t.dtype}, it should be ${dtype}`)
}

/** All of one float type, which is returned; the last dimension of each contiguous. */
export function requireFloats(op: string, tensors: Readonly<Record<string, Tensor | undefined>>): void {
  let first: DType | undefined
  for (const [name, t] of Object.entries(tensors)) {
    if (!t) continue
    if (!isFloat(t.dtype)) throw testingError('BAD_DTYPE', `${op}: ${name} is ${t.dtype}, it should be f32, f16 or bf16`)
    first ??= t.dtype
    if (t.dtype !== first) throw testingError('BAD_DTYPE', `${op}: ${name} is ${t.dtype}, the other tensors are ${first}`)
    requireRows(op, name, t)
  }
}

export function requireRows(op: string, name: string, t: Tensor): void {
  if (t.shape.length > 0 && t.lastDim > 1 && t.stride(-1) !== 1)
    throw tensorError('BAD_SHAPE', `${op}: the last dimension of ${name} has stride ${t.stride(-1)}, it should be 1`)
}
