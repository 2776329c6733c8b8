import type { Kernels, RotaryOptions, Tensor } from '@aphrodite/tensor'
import { requireDtype, requireFloats, requireShape, requireThat, type Views } from './view.ts'

export const rotaryOps = (views: Views): Pick<Kernels, 'rotary'> => ({
  rotary(q, k, positions, cosSin, options) {
    requireFloats('rotary', { q, k })
    requireDtype('rotary', 'f32', { cosSin })
    requireDtype('rotary', 'i32', { positions, selector: options.selector })
    const tokens = positions.size
    const rotaryDim = cosSin.lastDim
    if (options.selector) requireShape('rotary', 'selector', options.selector, [tokens])
    const place = views.read(positions)
    const selector = options.selector && views.read(options.selector)
    const rows = place.map((p, i) => p + (selector && selector[i]! > (options.bound ?? 0) ? cosSin.rows / 2 : 0))
    rows.forEach((row, i) => {
      requireThat('rotary', row >= 0 && row < cosSin.rows, `position ${place[i]} is outside the table of ${cosSin.rows} rows`)
    })
    const table = views.read(cosSin)
    for (const x of [q, k]) {
      requireShape('rotary', 'q or k', x, [tokens, -1, -1])
      requireThat('rotary', rotaryDim % 2 === 0 && rotaryDim <= x.lastDim, `${rotaryDim} rotary dimensions, heads have ${x.lastDim}`)
      views.write(x, rotated(x, views.read(x), rows, table, rotaryDim, options))
    }
  },
})

function rotated(x: Tensor, values: Float64Array, rows: Float64Array, table: Float64Array, rotaryDim: number, options: RotaryOptions) {
  const heads = x.dim(1)
  const dim = x.dim(2)
  const half = rotaryDim / 2
  const y = values.slice()
  for (let t = 0; t < rows.length; t++)
    for (let h = 0; h < heads; h++)
      for (let i = 0; i < half; i++) {
        const at = (t * heads + h) * dim
        const a = at + (options.interleaved ? 2 * i : i)
        const b = at + (options.interleaved ? 2 * i + 1 : i + half)
        const cos = table[rows[t]! * rotaryDim + i]!
        const sin = table[rows[t]! * rotaryDim + half + i]!
        y[a] = values[a]! * cos - values[b]! * sin
        y[b] = values[b]! * cos + values[a]! * sin
      }
  return y
}
