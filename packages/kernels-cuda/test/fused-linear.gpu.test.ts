import type { Activation, FloatDType } from '@aphrodite/tensor'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { findNative } from '../src/native.ts'
import { describeFused, type FusedCase, FusedLab, type FusedNative, type Plan } from './fused-linear.ts'
import { describeOnCuda } from './on-cuda.ts'

const found = findNative()
const native = 'native' in found ? (found.native as FusedNative) : undefined

const ACTIVATIONS: readonly Activation[] = ['silu', 'gelu', 'geluTanh', 'relu', 'relu2']
const pick = <T>(from: readonly T[], i: number): T => from[i % from.length]!

/** Every shape with every number of tokens; what stands beside the product changes from one to the next. */
function oddCases(): FusedCase[] {
  const cases: FusedCase[] = []
  let i = 0
  for (const k of [1, 32, 40, 72, 896, 1000, 4864])
    for (const n of k > 1000 ? [5, 130] : [1, 5, 130, 1000])
      for (const tokens of [1, 2, 3, 4, 5, 6, 7, 8]) {
        const format = pick(['bf16', 'f16'] as const, i >> 1)
        const normed = tokens <= 2 && (i >> 3) % 2 === 0
        const gated = n % 2 === 0 && i % 3 === 0
        const x: FloatDType = normed && i % 4 !== 1 ? 'f32' : format
        cases.push({
          ...{ tokens, n, k, format, x, out: pick(['f32', format, format], i) },
          bias: pick([undefined, 'f32', format], i >> 2),
          norm: normed ? pick([format, 'f32'] as const, i >> 3) : undefined,
          offset: pick([0, 1], i >> 1),
          residual: !gated && i % 3 === 1,
          activation: gated ? pick(ACTIVATIONS, i) : undefined,
          strided: i % 5 === 0,
        })
        i++
      }
  return cases
}

/** Layers of real models, small enough for JavaScript. */
const LAYERS: readonly FusedCase[] = [
  { tokens: 1, n: 4096, k: 4096, format: 'bf16', x: 'bf16', out: 'f32', residual: true },
  { tokens: 1, n: 6144, k: 1024, format: 'bf16', x: 'f32', out: 'bf16', norm: 'bf16', activation: 'silu' },
  { tokens: 2, n: 2048, k: 4096, format: 'f16', x: 'f32', out: 'f16', norm: 'f16' },
  { tokens: 4, n: 512, k: 14336, format: 'bf16', x: 'bf16', out: 'bf16', residual: true },
  { tokens: 8, n: 1024, k: 3072, format: 'bf16', x: 'bf16', out: 'bf16' },
  { tokens: 8, n: 3072, k: 2048, format: 'bf16', x: 'bf16', out: 'bf16', bias: 'bf16' },
  { tokens: 5, n: 2048, k: 4096, format: 'f16', x: 'f16', out: 'f16', activation: 'geluTanh' },
  { tokens: 1, n: 1024, k: 3072, format: 'bf16', x: 'bf16', out: 'f32', residual: true, bias: 'bf16' },
  { tokens: 2, n: 2048, k: 8192, format: 'bf16', x: 'bf16', out: 'f32', residual: true },
  { tokens: 2, n: 4096, k: 1024, format: 'bf16', x: 'f32', out: 'bf16', norm: 'bf16', bias: 'bf16', strided: true },
  { tokens: 1, n: 30_000, k: 512, format: 'bf16', x: 'f32', out: 'f32', norm: 'bf16', offset: 1 },
  { tokens: 2, n: 6144, k: 2048, format: 'bf16', x: 'f32', out: 'bf16', norm: 'bf16', activation: 'silu' },
  { tokens: 1, n: 50, k: 4160, format: 'bf16', x: 'f32', out: 'bf16', norm: 'bf16', activation: 'silu' },
]

/** Plans of every kind; those that a case cannot have are passed over. */
const PLANS: readonly Plan[] = [
  [0, 1, 232_448],
  ...[1, 8, 16, 64].flatMap((lines) => [80_000, 114_688, 232_448].map((bytes): Plan => [1, lines, bytes])),
  ...[8, 16, 32, 64].flatMap((lines) => [80_000, 114_688, 232_448].map((bytes): Plan => [2, lines, bytes])),
]

describeOnCuda('the product of few rows', () => {
  let context = 0
  const lab = (c: FusedCase, seed: number): FusedLab => new FusedLab(native!, context, c, seed)
  beforeAll(() => {
    context = native!.createContext(0)
  })
  afterAll(() => {
    native!.destroyContext(context)
  })

  it('agrees with float64 for odd shapes, whatever stands beside it', () => {
    const failures: string[] = []
    let planned = 0
    oddCases().forEach((c, seed) => {
      const one = lab(c, seed)
      expect(one.fits, describeFused(c)).toBe(true)
      const wrong = one.failure(one.run()!)
      if (wrong) failures.push(`${describeFused(c)}: ${wrong}`)
      for (const plan of [PLANS[0]!, pick(PLANS, 5 * seed + 1), pick(PLANS, 5 * seed + 4)]) {
        const result = one.run(plan)
        const bad = result && one.failure(result)
        if (result) planned++
        if (bad) failures.push(`${describeFused(c)} by [${plan}]: ${bad}`)
      }
      one.release()
    })
    expect(failures).toEqual([])
    expect(planned).toBeGreaterThan(50)
  })

  it('agrees with float64 for layers of real models by every plan, and repeats itself bit by bit', () => {
    const failures: string[] = []
    LAYERS.forEach((c, seed) => {
      const one = lab(c, 1000 + seed)
      let plans = 0
      for (const plan of PLANS) {
        const result = one.run(plan)
        if (!result) continue
        plans++
        const bad = one.failure(result)
        if (bad) failures.push(`${describeFused(c)} by [${plan}]: ${bad}`)
        // Weights come from the cache by now: the consumer is what the ring waits for.
        for (let i = 0; i < 5; i++)
          if (!Buffer.from(one.run(plan)!.buffer).equals(Buffer.from(result.buffer)))
            failures.push(`${describeFused(c)} by [${plan}]: repetition ${i} differs`)
      }
      expect(plans, describeFused(c)).toBeGreaterThan(1)
      one.release()
    })
    expect(failures).toEqual([])
  })

  it('never overwrites what is still being read: 8 tokens, weights from the cache, 30 repetitions', () => {
    const one = lab({ tokens: 8, n: 2560, k: 4096, format: 'bf16', x: 'bf16', out: 'bf16' }, 7)
    const failures: string[] = []
    for (let i = 0; i < 30; i++) {
      const bad = one.failure(one.run()!)
      if (bad) failures.push(bad)
    }
    one.release()
    expect(failures).toEqual([])
  })

  it('says what it does not do', () => {
    const fits = (c: Partial<FusedCase>): boolean => {
      const { tokens, n, k, format, x, out, norm } = {
        ...{ tokens: 1, n: 64, k: 64, format: 'bf16', x: 'bf16', out: 'bf16' },
        ...c,
      } as FusedCase
      const code = { f32: 0, bf16: 1, f16: 2 }
      return native!.fusedLinearFits(context, tokens, code[format], n, k, code[x], code[out], norm ? 1 : 0, 0, -1)
    }
    expect(fits({})).toBe(true)
    expect(fits({ tokens: 9 })).toBe(false)
    expect(fits({ x: 'f16' })).toBe(false)
    expect(fits({ x: 'f32' })).toBe(false)
    expect(fits({ x: 'f32', norm: 'bf16' })).toBe(true)
    expect(fits({ tokens: 3, norm: 'bf16' })).toBe(false)
    expect(() => native!.fusedLinear(context, 1)).toThrow(/fusedLinear/)
  })
})
