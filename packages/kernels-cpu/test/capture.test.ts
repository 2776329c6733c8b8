import { Arena, type Tensor } from '@aphrodite/tensor'
import { afterAll, expect, test } from 'vitest'
import { createCpuDevice } from '../src/index.ts'

const device = createCpuDevice({ threads: 2, pin: false })
const arena = new Arena(device)
afterAll(() => {
  arena.release()
  device.close()
})

const { kernels } = device
const weight = arena.packed(40, 24, 'bf16')
device.pack(
  weight,
  {
    bytes: new Uint8Array(Float32Array.from({ length: 960 }, (_, i) => Math.sin(i)).buffer),
    dtype: 'f32',
    shape: [40, 24],
    strides: [24, 1],
  },
  0,
  0,
)
const norm = arena.empty([24], 'bf16')
device.upload(norm, new Float32Array(24).fill(0.5))
const ids = arena.empty([3], 'i32')
const x = arena.empty([3, 24], 'bf16')
const y = arena.empty([3, 40], 'f32')

function enqueue(): void {
  kernels.embedding(x, ids, weight, 0)
  kernels.rmsNorm(x, x, norm, 1e-6, 0)
  kernels.linear(y, x, weight)
}
const bitsOf = (t: Tensor) => Buffer.from(device.download(t).buffer).toString('hex')

test('a graph does what its ops do, with what the memory holds when it is replayed', () => {
  device.upload(ids, Int32Array.of(0, 1, 2))
  const graph = device.capture(enqueue)
  for (const list of [
    [5, 6, 7],
    [39, 0, 12],
    [1, 1, 1],
  ]) {
    device.upload(ids, Int32Array.from(list))
    enqueue()
    const want = bitsOf(y)
    kernels.fill(y, 0)
    kernels.fill(x, 0)
    graph.replay()
    expect(bitsOf(y)).toBe(want)
  }
  graph.release()
  expect(() => graph.replay()).toThrow(/no such recording/)
})

test('capturing computes nothing', () => {
  kernels.fill(y, 7)
  device.capture(enqueue).release()
  expect(new Set(device.download(y))).toEqual(new Set([7]))
})

test('what moves data of the host cannot be captured; the device works on', () => {
  expect(() => device.capture(() => device.upload(ids, Int32Array.of(1, 2, 3)))).toThrow(/upload: it moves data of the host/)
  expect(() => device.capture(() => device.download(y))).toThrow(/download: it moves data of the host/)
  expect(() =>
    device.capture(() => {
      throw new Error('stop')
    }),
  ).toThrow('stop')
  expect(() =>
    device.capture(() => {
      device.capture(() => {})
    }),
  ).toThrow(/a recording is being made already/)
  enqueue()
})

test('a replayed op checks its numbers: memory that is gone is an error, not a crash', () => {
  const own = new Arena(device, 1)
  const t = own.empty([1 << 20], 'f32')
  const graph = device.capture(() => kernels.fill(t, 1))
  own.release()
  expect(() => graph.replay()).toThrow(/fill: out lies outside the memory of this device/)
})
