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
  if (a.rows > 1 && b.rows > 1 && a.stride === b.stride) {
    // Row i of a and row i + n of b are the same distance apart for all i.
    const { stride } = a
    const apart = b.start - a.start
    const least = Math.max(1 - a.rows, Math.floor((-b.rowBytes - apart) / stride) + 1)
    return least < b.rows && apart + least * stride < a.rowBytes
  }
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

/** Whether all of `inner` lies in `outer`, where that is easily said. */
function holds(outer: Region, inner: Region): boolean {
  if (outer.rows === 1) return outer.start <= inner.start && endOf(inner) <= endOf(outer)
  if (inner.rows > 1 && inner.stride !== outer.stride) return false
  const row = Math.floor((inner.start - outer.start) / outer.stride)
  const column = inner.start - outer.start - row * outer.stride
  return row >= 0 && row + inner.rows <= outer.rows && column + inner.rowBytes <= outer.rowBytes
}

/** A set of bytes. Regions stay what they are for as long as they come and go whole: a step has views of thousands of rows. */
export class ByteSet {
  #regions: Region[] = []

  constructor(regions: Iterable<Region> = []) {
    for (const region of regions) this.add(region)
  }

  get isEmpty(): boolean {
    return this.#regions.length === 0
  }

  add(region: Region): void {
    if (region.rows > 0 && !this.#regions.some((r) => holds(r, region))) this.#regions.push(region)
  }

  subtract(region: Region): void {
    if (!this.overlaps(region)) return
    this.#regions = this.#regions.flatMap((r) => (!overlaps(r, region) ? r : holds(region, r) ? [] : without(r, region)))
  }

  overlaps(region: Region): boolean {
    for (const r of this.#regions) if (overlaps(r, region)) return true
    return false
  }
}

/** What is left of a. */
function without(a: Region, b: Region): Region[] {
  const { block } = a
  const column = b.start - a.start
  if (a.rows === 1 && b.rows > 1 && column >= 0 && endOf(b) <= endOf(a)) {
    const between = { start: b.start + b.rowBytes, rowBytes: b.stride - b.rowBytes, rows: b.rows - 1, stride: b.stride, block }
    const parts = [contiguous(a.start, column, block), between, contiguous(endOf(b), endOf(a) - endOf(b), block)]
    return parts.filter((r) => r.rows > 0 && r.rowBytes > 0)
  }
  if (a.rows > 1 && a.rows === b.rows && a.stride === b.stride && column + b.rowBytes <= a.stride && column >= a.rowBytes - a.stride) {
    // Row for row, beside each other.
    const right = column + b.rowBytes
    const parts = [
      { ...a, rowBytes: column },
      { ...a, start: a.start + right, rowBytes: a.rowBytes - right },
    ]
    return parts.filter((r) => r.rowBytes > 0)
  }
  const left: Region[] = []
  const edges = edgesOf(b)
  let e = 0
  for (let i = 0, from = a.start, end = from + a.rowBytes; i < a.rows; i++, from = a.start + i * a.stride, end = from + a.rowBytes) {
    while (e > 0 && edges[e - 1]! > from) e -= 2
    for (; e < edges.length && edges[e]! < end; e += 2) {
      if (edges[e]! > from) left.push(contiguous(from, edges[e]! - from, block))
      from = Math.max(from, edges[e + 1]!)
    }
    if (from < end) left.push(contiguous(from, end - from, block))
  }
  return left
}

/** start, end, start, end … */
function edgesOf(r: Region): number[] {
  const edges: number[] = []
  for (let i = 0, s = r.start; i < r.rows; i++, s += r.stride) edges.push(s, s + r.rowBytes)
  return edges
}
