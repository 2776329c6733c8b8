// Half-width floats. Rounding is done from float64 in one step: going through float32 first would round twice.

const f64 = new Float64Array(1)
const f64Words = new Uint32Array(f64.buffer)
const f32 = new Float32Array(1)
const f32Words = new Uint32Array(f32.buffer)
const HIGH = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1 ? 1 : 0

/** 2^k for every k that a float64 can hold. */
const POWERS = Float64Array.from({ length: 2100 }, (_, i) => 2 ** (i - 1074))
const power = (k: number): number => POWERS[k + 1074]!

/** x rounded, ties to even, to a binary float with `mantissa` stored bits and least normal exponent `least`. No overflow. */
function roundTo(x: number, mantissa: number, least: number): number {
  f64[0] = x
  const exponent = ((f64Words[HIGH]! >>> 20) & 0x7ff) - 1023
  const quantum = power(Math.max(exponent, least) - mantissa)
  // Above 2^52 quanta a float64 has no bits left below one quantum, so the addition itself rounds to nearest even.
  const magic = 1.5 * power(52) * quantum
  return x + magic - magic
}

/** The bits of the bfloat16 nearest to x; ties to even, overflow to infinity. */
export function toBf16(x: number): number {
  const finite = Math.abs(x) < Number.POSITIVE_INFINITY
  f32[0] = finite ? roundTo(x, 7, -126) : x
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0
  if (Number.isNaN(x)) return 0x7fc0
  return sign | ((f32Words[0]! >>> 16) & 0x7fff)
}

export function fromBf16(bits: number): number {
  f32Words[0] = bits << 16
  return f32[0]!
}

/** The bits of the IEEE half nearest to x; ties to even, overflow to infinity. */
export function toF16(x: number): number {
  if (Number.isNaN(x)) return 0x7e00
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0
  const a = Math.abs(x)
  if (a >= 65520) return sign | 0x7c00
  const r = roundTo(a, 10, -14)
  if (r < power(-14)) return sign | (r * power(24))
  f64[0] = r
  const exponent = ((f64Words[HIGH]! >>> 20) & 0x7ff) - 1023
  return sign | ((exponent + 15) << 10) | ((r / power(exponent) - 1) * 1024)
}

export function fromF16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >>> 10) & 31
  const fraction = bits & 1023
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  return exponent === 0 ? sign * fraction * power(-24) : sign * (1 + fraction / 1024) * power(exponent - 15)
}

/** Exponent bias, stored bits of the fraction and the greatest finite value of an OCP 8-bit float. e4m3 has no infinity. */
interface ByteFloat {
  readonly bias: number
  readonly mantissa: number
  readonly most: number
}
const E4M3: ByteFloat = { bias: 7, mantissa: 3, most: 448 }
const E5M2: ByteFloat = { bias: 15, mantissa: 2, most: 57344 }

/** The bits of the 8-bit float nearest to x; ties to even; the greatest finite value for what is beyond it. */
function toByte(x: number, { bias, mantissa, most }: ByteFloat): number {
  if (Number.isNaN(x)) return 0x7f
  const sign = x < 0 || Object.is(x, -0) ? 0x80 : 0
  const r = Math.min(most, roundTo(Math.min(Math.abs(x), most), mantissa, 1 - bias))
  if (r < power(1 - bias)) return sign | (r * power(bias - 1 + mantissa))
  f64[0] = r
  const exponent = ((f64Words[HIGH]! >>> 20) & 0x7ff) - 1023
  return sign | ((exponent + bias) << mantissa) | ((r / power(exponent) - 1) * 2 ** mantissa)
}

function fromByte(bits: number, { bias, mantissa }: ByteFloat): number {
  const sign = bits & 0x80 ? -1 : 1
  const exponent = (bits & 0x7f) >>> mantissa
  const fraction = (bits & ((1 << mantissa) - 1)) / 2 ** mantissa
  return exponent === 0 ? sign * fraction * power(1 - bias) : sign * (1 + fraction) * power(exponent - bias)
}

export const toE4m3 = (x: number): number => toByte(x, E4M3)
export const fromE4m3 = (bits: number): number => ((bits & 0x7f) === 0x7f ? Number.NaN : fromByte(bits, E4M3))
export const toE5m2 = (x: number): number => toByte(x, E5M2)
export const fromE5m2 = (bits: number): number => fromF16(bits << 8)
