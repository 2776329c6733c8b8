import { describe, expect, it } from 'vitest'
import { fromBf16, fromE4m3, fromE5m2, fromF16, toBf16, toE4m3, toE5m2, toF16 } from '../src/reference/float.ts'

const nearest = (x: number, values: { bits: number; value: number }[]): number => {
  let best = values[0]!
  for (const v of values) {
    const d = Math.abs(v.value - x) - Math.abs(best.value - x)
    if (d < 0 || (d === 0 && v.bits % 2 === 0)) best = v
  }
  return best.bits
}

describe('bfloat16', () => {
  it('has the bits that IEEE rounding to nearest even gives', () => {
    // 1 + 2^-8 lies midway between 1 and 1 + 2^-7: the even one is 1.
    expect(toBf16(1)).toBe(0x3f80)
    expect(toBf16(1 + 2 ** -8)).toBe(0x3f80)
    expect(toBf16(1 + 3 * 2 ** -8)).toBe(0x3f82)
    expect(toBf16(-2)).toBe(0xc000)
    expect(toBf16(-0)).toBe(0x8000)
    expect(toBf16(Number.POSITIVE_INFINITY)).toBe(0x7f80)
    expect(toBf16(3.4e38)).toBe(0x7f80)
    expect(toBf16(3.3895e38)).toBe(0x7f7f)
    expect(Number.isNaN(fromBf16(toBf16(Number.NaN)))).toBe(true)
  })
  it('rounds once: through float32 this number would come out one step lower', () => {
    expect(toBf16(1 + 2 ** -8 + 2 ** -40)).toBe(0x3f81)
    expect(toBf16(Math.fround(1 + 2 ** -8 + 2 ** -40))).toBe(0x3f80)
  })
  it('gives every value back', () => {
    for (let bits = 0; bits < 0x7f80; bits++) expect(toBf16(fromBf16(bits))).toBe(bits)
  })
})

describe('float16', () => {
  const all = Array.from({ length: 0x7c00 }, (_, bits) => ({ bits, value: fromF16(bits) }))
  it('decodes known values', () => {
    expect(fromF16(0x3c00)).toBe(1)
    expect(fromF16(0x0001)).toBe(2 ** -24)
    expect(fromF16(0x7bff)).toBe(65504)
    expect(fromF16(0xfc00)).toBe(Number.NEGATIVE_INFINITY)
  })
  it('gives every value back', () => {
    for (const { bits, value } of all) expect(toF16(value)).toBe(bits)
  })
  it('finds the nearest of all values, even on ties, and overflows at 65520', () => {
    for (const x of [0.1, 1 / 3, 6.1e-5, 3e-5, 2 ** -25, 1.5 * 2 ** -24, 1 + 2 ** -11, 1 + 3 * 2 ** -11, 65519, 1e-9])
      expect(toF16(x)).toBe(nearest(x, all))
    expect(toF16(65520)).toBe(0x7c00)
    expect(toF16(-65520)).toBe(0xfc00)
  })
})

describe.each([
  { name: 'e4m3', from: fromE4m3, to: toE4m3, most: 448, last: 0x7e, one: 0x38, least: 2 ** -9 },
  { name: 'e5m2', from: fromE5m2, to: toE5m2, most: 57344, last: 0x7b, one: 0x3c, least: 2 ** -16 },
])('8-bit $name', ({ from, to, most, last, one, least }) => {
  const all = Array.from({ length: last + 1 }, (_, bits) => ({ bits, value: from(bits) }))
  it('decodes known values', () => {
    expect(from(one)).toBe(1)
    expect(from(0x80 | one)).toBe(-1)
    expect(from(1)).toBe(least)
    expect(from(last)).toBe(most)
    expect(from(0x7f)).toBeNaN()
  })
  it('gives every value back', () => {
    for (const { bits, value } of all) expect([to(value), to(-value)]).toEqual([bits, 0x80 | bits])
  })
  it('finds the nearest of all values, even on ties', () => {
    for (const [i, { value }] of all.slice(1).entries()) {
      const before = all[i]!.value
      for (const part of [0.25, 0.5, 0.75]) {
        const x = before + part * (value - before)
        expect(to(x)).toBe(nearest(x, all))
      }
    }
  })
  it('takes the greatest value for what is beyond it, and keeps NaN', () => {
    for (const x of [most * 1.01, most * 4, Number.POSITIVE_INFINITY]) expect([to(x), to(-x)]).toEqual([last, 0x80 | last])
    expect(from(to(Number.NaN))).toBeNaN()
  })
})
