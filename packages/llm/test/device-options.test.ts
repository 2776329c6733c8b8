import { describe, expect, it } from 'vitest'
import { openDevice, probeDevices } from '../src/devices.ts'
import { chooseDType } from '../src/dtype.ts'
import { LLM_DEFAULTS, resolveOptions } from '../src/options.ts'

describe('device', () => {
  it.each(['auto', 'cpu', 'cuda', 'cuda:0', 'cuda:12'] as const)('may be %s', (device) =>
    expect(resolveOptions({ model: 'm', device }).device).toBe(device),
  )
  it.each(['gpu', 'cuda:', 'cuda:-1', 'cuda:x', 'cuda 1', 3])('may not be %s', (device) =>
    expect(() => resolveOptions({ model: 'm', device: device as 'cpu' })).toThrow(/device should be auto, cpu, cuda or cuda:N/),
  )
  it('auto says why it takes the CPU, or takes a GPU', () => {
    const said: string[] = []
    const device = openDevice(resolveOptions({ model: 'm', threads: 1, pinThreads: false }), (message) => said.push(message))
    if (device.kind === 'cpu') expect(said).toEqual([expect.stringMatching(/^device: cpu, since there is no CUDA device \(.+\)$/)])
    else expect(said).toEqual([])
    device.close()
  })
  it('a GPU that is not there is an error with the reason', () => {
    expect(() => openDevice(resolveOptions({ model: 'm', device: 'cuda:99' }), () => {})).toThrow(
      expect.objectContaining({
        code: 'NO_DEVICE',
        message: expect.stringMatching(/no CUDA device: .+ Use --device cpu|no GPU 99/) as string,
      }),
    )
  })
  it('every device is reported, with a reason where it cannot be used', () => {
    const reports = probeDevices()
    expect(reports.map((r) => r.kind)).toEqual(expect.arrayContaining(['cpu', 'cuda']))
    for (const { available, reason } of reports) expect(available || (reason ?? '') !== '').toBe(true)
  })
})

describe('dtype auto', () => {
  it.each([
    ['bfloat16', 'cpu', 'bf16'],
    ['bfloat16', 'cuda', 'bf16'],
    ['float16', 'cuda', 'f16'],
    ['float32', 'cpu', 'f32'],
    ['float32', 'cuda', 'bf16'],
    [undefined, 'cuda', 'bf16'],
  ] as const)('%s on %s is %s', (torch_dtype, kind, expected) => expect(chooseDType('auto', { torch_dtype }, kind)).toBe(expected))
  it('what was asked for is what is taken', () => expect(chooseDType('float32', { torch_dtype: 'bfloat16' }, 'cuda')).toBe('f32'))
})

describe('gpuMemoryUtilization', () => {
  it('is 0.9, and from above 0 to 1', () => {
    expect(LLM_DEFAULTS.gpuMemoryUtilization).toBe(0.9)
    expect(resolveOptions({ model: 'm', gpuMemoryUtilization: 1 }).gpuMemoryUtilization).toBe(1)
    for (const gpuMemoryUtilization of [0, -1, 1.01, Number.NaN])
      expect(() => resolveOptions({ model: 'm', gpuMemoryUtilization })).toThrow(/gpuMemoryUtilization should be more than 0 and at most 1/)
  })
})
