import { describe, expect, it } from 'vitest'
import { probeCuda } from '../src/index.ts'
import { explained, unfitFor } from '../src/probe.ts'

describe('probeCuda', () => {
  it('never throws, and says why there is nothing', () => {
    const { devices, reason } = probeCuda()
    if (devices.length === 0) expect(reason).toMatch(/./)
    else expect(devices[0]!.memory).toBeGreaterThan(0)
  })
})

describe('unfitFor', () => {
  const released = '80 89 90 ptx90'
  it.each([80, 86, 89, 90, 100, 120])('a release runs on %i', (capability) => expect(unfitFor(capability, released)).toBeUndefined())
  it('nothing runs on Turing', () => expect(unfitFor(75, released)).toMatch(/7\.5; the kernels need 8\.0 \(Ampere\)/))
  it.each([
    [80, '90 ptx90'],
    [90, '80 89'],
    [80, '89'],
  ])('%i does not run what was built for %s', (capability, targets) =>
    expect(unfitFor(capability, targets)).toMatch(new RegExp(`built for ${targets}: .*KERNELS_CUDA_ARCHS=all`)),
  )
})

describe('explained', () => {
  const raw = 'CUDA driver version is insufficient for CUDA runtime version'
  it('tells a driver that is not there from one that is too old', () => {
    expect(explained(raw, undefined)).toBe(`no NVIDIA driver was found (${raw})`)
    expect(explained(raw, '470.82.01')).toBe(`the NVIDIA driver 470.82.01 is too old (${raw})`)
    expect(explained('out of memory', '580.1')).toBe('out of memory')
  })
})
