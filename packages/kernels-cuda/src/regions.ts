import type { Block, Tensor } from '@aphrodite/tensor'
import { sizeOf } from '@aphrodite/tensor'

/** Bytes that an op reads or writes: rows of equal length at equal distances. `stride` means nothing where there is one row. */
export interface Region {
  readonly start: number
  readonly rowBytes: number
  readonly rows: number
  readonly stride: number
  /** Of a workspace or an arena; undefined: memory that is never given back while a step runs. */
  readonly block: Block | undefined
}

export const contiguous = (start: number, bytes: number, block?: Block): Region => ({
  start,
  rowBytes: bytes,
  rows: bytes > 0 ? 1 : 0,
  stride: bytes,
  block,
})

/** The bytes of a tensor. Where more than its first stride is odd, all from its first to its last element. */
export function regionOf({ address, dtype, shape, strides, block }: Tensor): Region {
  const size = sizeOf(dtype)
  let inner = 1
  let last = 0
  let regular = true
  for (let d = shape.length - 1; d >= 0; d--) {
    const n = shape[d]!
    if (n === 0) return contiguous(address, 0, block)
    last += (n - 1) * strides[d]!
    if (d === 0) break
    if (n !== 1 && strides[d] !== inner) regular = false
    inner *= n
  }
  const rows = shape.length > 1 ? shape[0]! : 1
  const columns = shape.length > 1 ? inner : (shape[0] ?? 1)
  const stride = shape.length > 1 ? strides[0]! : columns
  if (!regular || (shape.length === 1 && columns > 1 && strides[0] !== 1) || (rows > 1 && stride < columns))
    return contiguous(address, (last + 1) * size, block)
  if (rows === 1 || stride === columns) return contiguous(address, rows * columns * size, block)
  return { start: address, rowBytes: columns * size, rows, stride: stride * size, block }
}

export const isSameRegion = (a: Region, b: Region): boolean =>
  a.start === b.start && a.rowBytes === b.rowBytes && a.rows === b.rows && (a.rows <= 1 || a.stride === b.stride)

/** The same elements, whatever shape they are seen in. */
export const isSameView = (a: Tensor, b: Tensor): boolean => a.dtype === b.dtype && isSameRegion(regionOf(a), regionOf(b))

const endOf = (r: Region): number => (r.rows === 0 ? r.start : r.start + (r.rows - 1) * r.stride + r.rowBytes)

/** Whether they have a byte in common. */
export function overlaps(a: Region, b: Region): boolean {
  if (a.rows === 0 || b.rows === 0 || endOf(a) <= b.start || endOf(b) <= a.start) return false
  if (a.rows === 1 && b.rows === 1) return true
  const [few, many] = a.rows < b.rows ? [a, b] : [b, a]
  for (let i = 0, s = few.start; i < few.rows; i++, s += few.stride) if (hits(many, s, s + few.rowBytes)) return true
  return false
}

/** Whether a row of r lies in part in [from, to). */
function hits(r: Region, from: number, to: number): boolean {
  if (r.rows === 1) return r.start < to && from < r.start + r.rowBytes
  // The first row that ends behind `from`.
  const row = Math.max(0, Math.floor((from - r.start - r.rowBytes) / r.stride) + 1)
  return row < r.rows && r.start + row * r.stride < to
}

/** A set of bytes: stretches in rising order that do not touch. */
export class ByteSet {
  /** start, end, start, end … */
  #edges: number[] = []

  constructor(regions: Iterable<Region> = []) {
    for (const region of regions) this.add(region)
  }

  get isEmpty(): boolean {
    return this.#edges.length === 0
  }

  add(region: Region): void {
    if (region.rows === 0) return
    this.#edges = this.isEmpty ? edgesOf(region) : merged(this.#edges, edgesOf(region), (a, b) => a || b)
  }

  subtract(region: Region): void {
    if (this.overlaps(region)) this.#edges = merged(this.#edges, edgesOf(region), (a, b) => a && !b)
  }

  overlaps(region: Region): boolean {
    const edges = this.#edges
    if (edges.length === 0 || region.rows === 0 || endOf(region) <= edges[0]! || edges[edges.length - 1]! <= region.start) return false
    for (let i = 0; i < edges.length; i += 2) if (hits(region, edges[i]!, edges[i + 1]!)) return true
    return false
  }
}

function edgesOf(r: Region): number[] {
  const edges: number[] = []
  for (let i = 0, s = r.start; i < r.rows; i++, s += r.stride) edges.push(s, s + r.rowBytes)
  return edges
}

/** The stretches where `keep` holds of being inside a and being inside b. */
function merged(a: readonly number[], b: readonly number[], keep: (inA: boolean, inB: boolean) => boolean): number[] {
  const result: number[] = []
  let i = 0
  let j = 0
  let inside = false
  while (i < a.length || j < b.length) {
    const at = Math.min(a[i] ?? Number.POSITIVE_INFINITY, b[j] ?? Number.POSITIVE_INFINITY)
    while (a[i] === at) i++
    while (b[j] === at) j++
    const now = keep(i % 2 === 1, j % 2 === 1)
    if (now !== inside) result.push(at)
    inside = now
  }
  return result
}
