import type { FloatDType } from '@aphrodite/tensor'

/** n numbers in [-1, 1), the same for the same seed. */
export function noise(n: number, seed: number): Float32Array {
  let s = (Math.imul(seed, 0x9e3779b1) ^ 0x5bd1e995) | 1
  return Float32Array.from({ length: n }, () => {
    s ^= s << 13
    s ^= s >>> 17
    s ^= s << 5
    return s / 2147483648
  })
}

/** Rounds to nearest even by the definition of the format: its precision, its least exponent, its greatest number. */
export function rounded(x: Float32Array, dtype: FloatDType): Float32Array {
  if (dtype === 'f32') return x.slice()
  const [bits, least, most] = dtype === 'bf16' ? [8, -126, 3.3895313892515355e38] : [11, -14, 65504]
  return x.map((v) => {
    if (v === 0 || !Number.isFinite(v)) return v
    const exponent = Math.max(Math.floor(Math.log2(Math.abs(v))), least)
    const unit = 2 ** (exponent - bits + 1)
    const q = v / unit
    const floor = Math.floor(q)
    const even = q - floor === 0.5 ? (floor % 2 === 0 ? floor : floor + 1) : Math.round(q)
    const r = even * unit
    return Math.abs(r) > most ? Math.sign(v) * Number.POSITIVE_INFINITY : r
  })
}

/** Whether two arrays hold the same bits. Much faster than a comparison number by number. */
export const sameBits = (a: Float32Array, b: Float32Array): boolean =>
  Buffer.compare(new Uint8Array(a.buffer, a.byteOffset, a.byteLength), new Uint8Array(b.buffer, b.byteOffset, b.byteLength)) === 0

/** The same numbers for the same arguments, made once. */
export function cached(make: (n: number, seed: number, dtype: FloatDType) => Float32Array): typeof make {
  const made = new Map<string, Float32Array>()
  return (n, seed, dtype) => {
    const key = `${n} ${seed} ${dtype}`
    if (!made.has(key)) made.set(key, make(n, seed, dtype))
    return made.get(key)!
  }
}
