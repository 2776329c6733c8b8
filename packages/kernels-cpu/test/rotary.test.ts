import { Arena, type FloatDType, type Tensor } from '@aphrodite/tensor'
import { afterAll, describe, expect, it } from 'vitest'
import { createCpuDevice, ISAS } from '../src/device.ts'
import { loadNative } from '../src/native.ts'
import { noise, rounded } from './numbers.ts'

const isas = ISAS.slice(0, loadNative().bestIsa() + 1)
const FLOATS: FloatDType[] = ['f32', 'bf16', 'f16']
/** An ulp of numbers up to 2 in f32; half a unit in the last place of the others, and what f32 adds to it. */
const LIMIT = { f32: 2.4e-7, bf16: 2 ** -8 + 1e-6, f16: 2 ** -11 + 1e-6 }

describe.each(isas)('rotary on %s', (isa) => {
  const device = createCpuDevice({ isa, threads: 2 })
  afterAll(() => device.close())

  it.each(FLOATS.flatMap((dtype) => [false, true].map((interleaved) => [dtype, interleaved] as const)))(
    '%s, interleaved %s: as in float64',
    (dtype, interleaved) => {
      for (const [tokens, heads, kvHeads, dim, rotaryDim] of [
        [1, 4, 2, 64, 64],
        [40, 3, 1, 80, 32],
        [19, 2, 2, 50, 46],
        [5, 1, 1, 2, 2],
      ] as const) {
        const arena = new Arena(device, 1 << 20)
        const upload = (shape: number[], data: Float32Array | Int32Array, type: FloatDType | 'i32'): Tensor => {
          const t = arena.empty(shape, type)
          device.upload(t, data)
          return t
        }
        // q and k are views of rows that hold more, as a model's are.
        const width = (heads + kvHeads) * dim + 6
        const before = rounded(noise(tokens * width, dim), dtype)
        const qkv = upload([tokens, width], before, dtype)
        const q = qkv.narrow(1, 0, heads * dim).view(-1, heads, dim)
        const k = qkv.narrow(1, heads * dim, kvHeads * dim).view(-1, kvHeads, dim)
        const rows = 100
        const table = noise(rows * rotaryDim, 3)
        const positions = Int32Array.from({ length: tokens }, (_, i) => (i * 37 + 11) % (rows / 2))
        const selector = Int32Array.from({ length: tokens }, (_, i) => (i % 3) * 8)
        const cosSin = upload([rows, rotaryDim], table, 'f32')
        const options = { interleaved, selector: upload([tokens], selector, 'i32'), bound: 8 }
        device.kernels.rotary(q, k, upload([tokens], positions, 'i32'), cosSin, options)
        const got = device.download(qkv) as Float32Array
        let worst = 0
        for (let t = 0; t < tokens; t++) {
          const row = (positions[t]! + (selector[t]! > 8 ? rows / 2 : 0)) * rotaryDim
          const want = Float64Array.from(before.subarray(t * width, (t + 1) * width))
          for (let h = 0; h < heads + kvHeads; h++)
            for (let i = 0; i < rotaryDim / 2; i++) {
              const a = h * dim + (interleaved ? 2 * i : i)
              const b = h * dim + (interleaved ? 2 * i + 1 : i + rotaryDim / 2)
              const [x, y] = [want[a]!, want[b]!]
              const cos = table[row + i]!
              const sin = table[row + rotaryDim / 2 + i]!
              want[a] = x * cos - y * sin
              want[b] = y * cos + x * sin
            }
          want.forEach((w, i) => {
            const error = Math.abs(w - got[t * width + i]!)
            if (!(error <= worst)) worst = error
            // What does not turn has the same bits.
            const inHead = i % dim
            if (i >= (heads + kvHeads) * dim || inHead >= rotaryDim) expect(got[t * width + i]).toBe(before[t * width + i])
          })
        }
        expect(worst).toBeLessThan(LIMIT[dtype])
        // A token alone has the same bits.
        const one = upload([1, width], before.subarray(0, width), dtype)
        device.kernels.rotary(
          one.narrow(1, 0, heads * dim).view(1, heads, dim),
          one.narrow(1, heads * dim, kvHeads * dim).view(1, kvHeads, dim),
          upload([1], positions.subarray(0, 1), 'i32'),
          cosSin,
          { interleaved },
        )
        expect(device.download(one)).toEqual(got.slice(0, width))
        arena.release()
      }
    },
  )

  it('names what is wrong', () => {
    const arena = new Arena(device, 1 << 20)
    const q = arena.empty([2, 4, 16], 'f32')
    const cosSin = arena.empty([8, 16], 'f32')
    const positions = (...x: number[]): Tensor => {
      const t = arena.empty([x.length], 'i32')
      device.upload(t, Int32Array.from(x))
      return t
    }
    const rotate =
      (p: Tensor, table = cosSin, options = {}, x = q) =>
      () =>
        device.kernels.rotary(x, x, p, table, options)
    expect(rotate(positions(0, 7))).not.toThrow()
    expect(rotate(positions(0, 8))).toThrow(/positions has 8, which is outside the table of 8 rows/)
    expect(rotate(positions(-1, 0))).toThrow(/positions has -1/)
    expect(rotate(positions(0, 5), cosSin, { selector: positions(0, 9), bound: 3 })).toThrow(/positions has 5/)
    expect(rotate(positions(0))).toThrow(/as many tokens/)
    expect(rotate(positions(0, 1), arena.empty([8, 18], 'f32'))).toThrow(/cosSin should have an even number of columns/)
    expect(rotate(positions(0, 1), arena.empty([8, 16], 'f16'))).toThrow(/cosSin has the wrong dtype/)
    expect(rotate(positions(0, 1), cosSin, { selector: positions(1) })).toThrow(/selector/)
    expect(rotate(positions(0, 1), cosSin, {}, arena.empty([2, 64], 'f32'))).toThrow(/should be \[tokens, heads, dim\]/)
    arena.release()
  })
})
