import type { Device, Kernels } from '@aphrodite/tensor'
import { describe, expect, it } from 'vitest'
import { createReferenceDevice, OP_CASES, runOpCase } from '../src/index.ts'

/** The reference device with one op done wrong. */
function broken(change: (kernels: Kernels) => Partial<Kernels>): Device {
  const device = createReferenceDevice()
  return { ...device, kernels: { ...device.kernels, ...change(device.kernels) } }
}
const failuresOf = (op: keyof Kernels, device: Device) => OP_CASES.filter((c) => c.op === op && runOpCase(c, device).failure).length
const count = (op: keyof Kernels) => OP_CASES.filter((c) => c.op === op).length

describe('the table', () => {
  it('has cases for every op, each under its own name', () => {
    expect(new Set(OP_CASES.map((c) => c.op))).toEqual(new Set(Object.keys(createReferenceDevice().kernels)))
    expect(new Set(OP_CASES.map((c) => c.name)).size).toBe(OP_CASES.length)
  })
  it('gives the same inputs each time', () => {
    const device = createReferenceDevice()
    for (const c of OP_CASES.filter((_, i) => i % 20 === 0)) expect(runOpCase(c, device)).toEqual({ worst: 0, failure: undefined })
  })
})

describe('a wrong kernel is noticed', () => {
  it('an eps that is left out', () => {
    const device = broken((k) => ({ rmsNorm: (out, x, w, _eps, offset) => k.rmsNorm(out, x, w, 1e-3, offset) }))
    expect(failuresOf('rmsNorm', device)).toBeGreaterThan(count('rmsNorm') / 3)
  })
  it('a row that is written past its end', () => {
    const device = broken((k) => ({
      scale(out, x, factor) {
        k.scale(out, x, factor)
        if (out.stride(0) > out.size / out.dim(0)) k.fill(gap(out), 0)
      },
    }))
    expect(failuresOf('scale', device)).toBeGreaterThan(0)
  })
  it('a last row that is forgotten', () => {
    const device = broken((k) => ({
      add(out, a, b) {
        if (out.dim(0) > 1) k.add(out.narrow(0, 0, out.dim(0) - 1), a.narrow(0, 0, out.dim(0) - 1), b.narrow(0, 0, out.dim(0) - 1))
        else k.add(out, a, b)
      },
    }))
    expect(failuresOf('add', device)).toBeGreaterThan(count('add') / 2)
  })
  it('a window that is one token too wide', () => {
    const device = broken((k) => ({
      pagedAttention: (out, q, cache, batch, o) => k.pagedAttention(out, q, cache, batch, o.window ? { ...o, window: o.window + 1 } : o),
    }))
    const windows = OP_CASES.filter((c) => c.op === 'pagedAttention' && c.name.includes('window'))
    expect(windows.every((c) => runOpCase(c, device).failure)).toBe(true)
  })
  it('a draw from other random numbers', () => {
    const device = broken((k) => ({
      sample: (tokens, logits, b) => k.sample(tokens, logits, { ...b, seeds: b.seeds.zeros(b.seeds.shape) }),
    }))
    expect(failuresOf('sample', device)).toBeGreaterThan(10)
  })
})

/** The element behind the first row. */
function gap(out: Parameters<Kernels['scale']>[0]) {
  const wide = Object.assign(Object.create(Object.getPrototypeOf(out)), out, {
    shape: [1, out.stride(0)],
    strides: [out.stride(0), 1],
  }) as typeof out
  return wide.narrow(1, out.stride(0) - 1, 1)
}
