import { Arena } from '@aphrodite/tensor'
import { beforeEach, describe, expect, test } from 'vitest'
import { lazyDevice } from '../src/lazy-device.ts'
import { createReferenceDevice } from '../src/reference/device.ts'

const open = () => {
  const reference = createReferenceDevice()
  const device = lazyDevice(reference)
  const arena = new Arena(device, 1)
  const [a, b] = [arena.empty([2], 'f32'), arena.empty([2], 'f32')]
  return { reference, device, arena, a, b }
}
let s: ReturnType<typeof open>
beforeEach(() => {
  s = open()
})

describe('a lazy device', () => {
  test('does nothing before it is waited for, and then no more than that', async () => {
    const { reference, device, a, b } = s
    device.upload(a, Float32Array.of(1, 2))
    device.kernels.add(b, a, a)
    const first = device.read(b)
    device.kernels.fill(b, 7)
    const second = device.read(b)
    expect(reference.download(b)).toEqual(Float32Array.of(0, 0))
    expect(await first.wait()).toEqual(Float32Array.of(2, 4))
    expect(reference.download(b)).toEqual(Float32Array.of(2, 4))
    expect(await second.wait()).toEqual(Float32Array.of(7, 7))
    device.kernels.fill(b, 8)
    expect(device.download(b)).toEqual(Float32Array.of(8, 8))
  })

  test('an upload takes what the array holds when it is called', () => {
    const { device, a } = s
    const host = Float32Array.of(1, 2)
    device.upload(a, host)
    host.fill(9)
    expect(device.download(a)).toEqual(Float32Array.of(1, 2))
  })

  test('does a captured step as often as it is replayed, in its turn', async () => {
    const { device, a, b } = s
    device.upload(a, Float32Array.of(1, 2))
    const graph = device.capture!(() => device.kernels.add(b, b, a))
    graph.replay()
    graph.replay()
    device.upload(a, Float32Array.of(10, 20))
    graph.replay()
    expect(await device.read(b).wait()).toEqual(Float32Array.of(12, 24))
    expect(() => device.capture!(() => device.upload(a, Float32Array.of(0, 0)))).toThrow('an upload cannot be captured')
    expect(() => device.capture!(() => device.download(a))).toThrow('a download cannot be captured')
    expect(device.download(b)).toEqual(Float32Array.of(12, 24))
  })

  test('what breaks takes with it what was behind it, and nothing that comes later', async () => {
    const { device, a, b } = s
    const before = device.read(a)
    device.kernels.feedTokens(a, b, b) // Not integers.
    const [broken, behind] = [device.read(a), device.read(b)]
    expect(await before.wait()).toEqual(Float32Array.of(0, 0))
    await expect(broken.wait()).rejects.toThrow('feedTokens')
    await expect(behind.wait()).rejects.toThrow('feedTokens')
    device.kernels.fill(b, 3)
    expect(await device.read(b).wait()).toEqual(Float32Array.of(3, 3))
  })

  test('memory that something enqueued needs cannot be given back', () => {
    const { device, arena, a } = s
    device.kernels.fill(a, 1)
    expect(() => arena.release()).toThrow('memory is given back while something is enqueued')
    device.download(a)
  })
})
