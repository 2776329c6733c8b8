import { afterAll, beforeAll, expect, it } from 'vitest'
import { findNative } from '../src/native.ts'
import { describeFused, type FusedCase, FusedLab, type FusedNative } from './fused-linear.ts'
import { describeOnCuda } from './on-cuda.ts'

// The kernel is chosen only where it is asked for (docs/gemm.md): run these with APHRODITE_WGMMA=1.
const asked = process.env['APHRODITE_WGMMA'] === '1'

const CASES: readonly FusedCase[] = [
  { tokens: 17, n: 1024, k: 256, format: 'bf16', x: 'bf16', out: 'bf16', activation: 'silu' },
  { tokens: 33, n: 3072, k: 1000, format: 'f16', x: 'f16', out: 'f16', activation: 'geluTanh', bias: 'f16' },
  { tokens: 64, n: 6144, k: 512, format: 'bf16', x: 'bf16', out: 'bf16', activation: 'silu' },
  { tokens: 65, n: 1000, k: 1120, format: 'bf16', x: 'bf16', out: 'f32', activation: 'gelu', bias: 'f32', strided: true },
  { tokens: 100, n: 514, k: 333, format: 'f16', x: 'f16', out: 'f32', activation: 'relu2', strided: true },
  { tokens: 128, n: 4096, k: 256, format: 'bf16', x: 'bf16', out: 'bf16', activation: 'relu' },
]

describeOnCuda('the gated product of some more rows', () => {
  const native = 'native' in findNative() ? (findNative() as { native: FusedNative }).native : undefined
  let context = 0
  let wgmma = false
  beforeAll(() => {
    context = native!.createContext(0)
    wgmma = native!.describeContext(context).capability === 90
  })
  afterAll(() => native!.destroyContext(context))

  it.skipIf(!asked).each(CASES.map((c) => [describeFused(c), c] as const))('%s', { timeout: 60_000 }, (_, c) => {
    const lab = new FusedLab(native!, context, c, c.tokens)
    // Other chips do the product and what follows it apart.
    expect(lab.fits).toBe(wgmma)
    if (wgmma) {
      const first = lab.run()!
      expect(lab.failure(first)).toBe(undefined)
      for (let i = 0; i < 10; i++) expect(Buffer.from(lab.run()!.buffer).equals(Buffer.from(first.buffer))).toBe(true)
    }
    lab.release()
  })
})
