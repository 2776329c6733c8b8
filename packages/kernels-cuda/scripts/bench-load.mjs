// Speed of loading weights from a file in the page cache: node scripts/bench-load.mjs [folder]
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { Arena } from '@aphrodite/tensor'
import { openSafetensors } from '../../loader/dist/index.js'
import { createCudaDevice } from '../dist/index.js'

const [n, k, count] = [28672, 4096, 8]
const bytes = n * k * 2
const path = join(process.argv[2] ?? '/tmp', `bench-load-${process.pid}.safetensors`)
const header = Object.fromEntries(
  Array.from({ length: count }, (_, i) => [`w${i}`, { dtype: 'BF16', shape: [n, k], data_offsets: [i * bytes, (i + 1) * bytes] }]),
)
const text = JSON.stringify(header)
const padded = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8, ' '))
const length = Buffer.alloc(8)
length.writeBigUInt64LE(BigInt(padded.length))
const block = new Uint16Array(bytes / 2).map((_, i) => 0x3c00 | (i & 0x80ff))
const fd = openSync(path, 'w')
writeSync(fd, length)
writeSync(fd, padded)
for (let i = 0; i < count; i++) writeSync(fd, new Uint8Array(block.buffer))
closeSync(fd)

const device = createCudaDevice()
console.log(device.description)
const arena = new Arena(device, 1 << 20)
const weights = Array.from({ length: count }, () => arena.packed(n, k, 'bf16'))
const rate = (ms) => `${((count * bytes) / ms / 1e6).toFixed(1)} GB/s`
for (let round = 0; round < 3; round++) {
  const file = openSafetensors(path)
  let viewed = 0
  let packed = 0
  const start = performance.now()
  for (let i = 0; i < count; i++) {
    const a = performance.now()
    const array = file.get(`w${i}`)
    const b = performance.now()
    device.pack(weights[i], array, 0, 0)
    packed += performance.now() - b
    viewed += b - a
  }
  await device.synchronize()
  console.log(`file to device ${rate(performance.now() - start)}; opening the views ${rate(viewed)}, pack ${rate(packed)}`)
  file.close()
}
const host = new Uint8Array(block.buffer)
const sources = [
  ['bf16 from the heap', { bytes: host, dtype: 'bf16', shape: [n, k], strides: [k, 1] }],
  ['bf16, half of the columns', { bytes: host, dtype: 'bf16', shape: [n, k / 2], strides: [k, 1] }],
  ['bf16 transposed', { bytes: host, dtype: 'bf16', shape: [n, k], strides: [1, n] }],
  ['f16 to bf16', { bytes: host, dtype: 'f16', shape: [n, k], strides: [k, 1] }],
  ['f32 to bf16', { bytes: host, dtype: 'f32', shape: [n / 2, k], strides: [k, 1] }],
  ['f8e4m3 to bf16', { bytes: host, dtype: 'f8e4m3', shape: [n, k], strides: [k, 1] }],
]
for (const [name, array] of sources) {
  const size = { f32: 4, f8e4m3: 1 }[array.dtype] ?? 2
  let best = Number.POSITIVE_INFINITY
  for (let round = 0; round < 3; round++) {
    const start = performance.now()
    for (let i = 0; i < 4; i++) device.pack(weights[i], array, 0, 0)
    await device.synchronize()
    best = Math.min(best, performance.now() - start)
  }
  console.log(`${name.padEnd(26)} ${((4 * array.shape[0] * array.shape[1] * size) / best / 1e6).toFixed(1)} GB/s of source`)
}
device.close()
rmSync(path)
