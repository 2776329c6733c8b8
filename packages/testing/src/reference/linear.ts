import { type HostArray, type Kernels, type PackedWeight, sizeOf, type WeightFormat } from '@aphrodite/tensor'
import { testingError } from '../errors.ts'
import { hostElements } from './host.ts'
import type { Elements } from './memory.ts'
import { requireDtype, requireFloats, requireShape, requireThat, type Views } from './view.ts'

/** A packed weight is row-major [outFeatures, inFeatures] here. */
export const packedBytes = (format: WeightFormat, outFeatures: number, inFeatures: number): number =>
  outFeatures * inFeatures * sizeOf(format)

const elements = (views: Views, w: PackedWeight): Elements => views.memory.elements(w.address, w.format, w.outFeatures * w.inFeatures)

export function unpack(views: Views, w: PackedWeight): Float32Array {
  const e = elements(views, w)
  return Float32Array.from({ length: w.outFeatures * w.inFeatures }, (_, i) => e.get(i))
}

export function pack(views: Views, dst: PackedWeight, src: HostArray, row: number, column: number): void {
  requireThat('pack', src.shape.length === 2, `the source has shape [${src.shape}], it should have two dimensions`)
  const [rows, columns] = src.shape as [number, number]
  requireThat(
    'pack',
    row >= 0 && column >= 0 && row + rows <= dst.outFeatures && column + columns <= dst.inFeatures,
    `[${rows}, ${columns}] at (${row}, ${column}) does not fit in [${dst.outFeatures}, ${dst.inFeatures}]`,
  )
  const from = hostElements('pack', src)
  const to = elements(views, dst)
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) to.set((row + r) * dst.inFeatures + column + c, from(r * src.strides[0]! + c * src.strides[1]!))
}

export const linearOps = (views: Views): Pick<Kernels, 'linear' | 'embedding' | 'gatherRows' | 'feedTokens'> => ({
  linear(out, x, weight, bias) {
    requireFloats('linear', { out })
    requireFloats('linear', { x })
    const m = x.rows
    const k = weight.inFeatures
    const n = weight.outFeatures
    requireThat('linear', x.lastDim === k, `x is [${x.shape}], the weight has ${k} inputs`)
    requireThat('linear', out.lastDim === n && out.rows === m, `out is [${out.shape}], it should be [${m}, ${n}]`)
    if (bias) requireShape('linear', 'bias', bias, [n])
    if (bias) requireFloats('linear', { bias })
    const a = views.read(x)
    const e = elements(views, weight)
    const w = Float64Array.from({ length: n * k }, (_, i) => e.get(i))
    const b = bias && views.read(bias)
    const y = new Float64Array(m * n)
    for (let i = 0; i < m; i++)
      for (let j = 0; j < n; j++) {
        let sum = 0
        for (let l = 0; l < k; l++) sum += a[i * k + l]! * w[j * k + l]!
        y[i * n + j] = sum + (b ? b[j]! : 0)
      }
    views.write(out, y)
  },

  embedding(out, ids, table, firstRow) {
    requireFloats('embedding', { out })
    requireDtype('embedding', 'i32', { ids })
    const k = table.inFeatures
    requireThat('embedding', out.lastDim === k && out.rows === ids.size, `out is [${out.shape}], it should be [${ids.size}, ${k}]`)
    const e = elements(views, table)
    const y = new Float64Array(ids.size * k)
    views.read(ids).forEach((id, i) => {
      const row = id - firstRow
      if (row < 0 || row >= table.outFeatures) return
      for (let l = 0; l < k; l++) y[i * k + l] = e.get(row * k + l)
    })
    views.write(out, y)
  },

  gatherRows(out, x, rows) {
    requireFloats('gatherRows', { out, x })
    requireDtype('gatherRows', 'i32', { rows })
    const k = x.lastDim
    requireThat('gatherRows', out.lastDim === k && out.rows === rows.size, `out is [${out.shape}], it should be [${rows.size}, ${k}]`)
    const values = views.read(x)
    const y = new Float64Array(rows.size * k)
    views.read(rows).forEach((row, i) => {
      if (row >= 0 && row < x.rows) y.set(values.subarray(row * k, row * k + k), i * k)
    })
    views.write(out, y)
  },
  feedTokens(ids, lastTokens, sources) {
    requireDtype('feedTokens', 'i32', { ids, lastTokens, sources })
    requireShape('feedTokens', 'ids', ids, [sources.size])
    const last = views.read(lastTokens)
    const kept = views.read(ids)
    views.write(
      ids,
      views.read(sources).map((source, i) => last[source] ?? kept[i]!),
    )
  },
})

/** Throws for a format that this device does not store. */
export function requireFormat(format: WeightFormat): void {
  if (format !== 'f32' && format !== 'f16' && format !== 'bf16')
    throw testingError('BAD_DTYPE', `the reference device has no weight format ${String(format)}`)
}
