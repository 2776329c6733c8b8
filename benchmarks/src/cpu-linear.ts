// The linear layers of Llama-3.2-1B on the CPU, beside what the machine can do, measured in the same run: read bandwidth over
// the very weights, and the peak of multiplications in registers. JSON lines; the first is the configuration.
//
//   node benchmarks/dist/cpu-linear.js [--format bf16] [--dtype bf16] [--threads 0] [--isa auto] [--rows 1,8,16,512] [--layers 16]
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { createCpuDevice, type Isa, measurePeak, measureReadBandwidth } from '@aphrodite/kernels-cpu'
import { Arena, type FloatDType, type PackedWeight, type WeightFormat } from '@aphrodite/tensor'

const { values } = parseArgs({
  options: {
    format: { type: 'string', default: 'bf16' },
    dtype: { type: 'string', default: 'bf16' },
    threads: { type: 'string', default: '0' },
    isa: { type: 'string', default: 'auto' },
    rows: { type: 'string', default: '1,8,16,512' },
    layers: { type: 'string', default: '16' },
    seconds: { type: 'string', default: '1' },
    'no-pin': { type: 'boolean', default: false },
  },
})
const format = values.format as WeightFormat
const dtype = values.dtype as FloatDType
const print = (line: object): void => console.log(JSON.stringify(line))
const round = (x: number, digits: number): number => Number(x.toFixed(digits))

const device = createCpuDevice({ threads: Number(values.threads), isa: values.isa as Isa | 'auto', pin: !values['no-pin'] })
const LAYER = [
  [3072, 2048],
  [2048, 2048],
  [16384, 2048],
  [2048, 8192],
] as const
const HEAD = [128256, 2048] as const
const shapes = [...Array.from({ length: Number(values.layers) }, () => LAYER).flat(), HEAD]

const bytes = shapes.reduce((sum, [n, k]) => sum + device.packedBytes(format, n, k), 0)
const arena = new Arena(device, bytes)
const base = arena.reserve(0)
const weights: PackedWeight[] = shapes.map(([n, k]) => arena.packed(n, k, format))
const numbers = Uint16Array.from({ length: 1 << 22 }, (_, i) => 0x3c00 | ((i * 2654435761) >>> 25) | (i & 1 ? 0x8000 : 0)) // bf16
const begin = performance.now()
for (const weight of weights) fill(weight)
print({
  benchmark: 'cpu-linear',
  device: device.description,
  cpu: cpus()[0]?.model,
  node: process.version,
  format,
  dtype,
  pinned: !values['no-pin'],
  weightBytes: bytes,
  packSeconds: round((performance.now() - begin) / 1000, 2),
})

const activations = new Arena(device)
const most = Math.max(...values.rows.split(',').map(Number))
const x = activations.empty([most, 8192], dtype)
device.upload(
  x,
  Float32Array.from({ length: most * 8192 }, (_, i) => Math.sin(i)),
)
const out = activations.empty([most, 16384], dtype)
const logits = activations.empty([Math.min(most, 32), HEAD[0]], 'f32')

const bandwidth = measureReadBandwidth(device, base, bytes)
const peak = measurePeak(device, format === 'bf16' && dtype === 'bf16' ? 'bf16' : 'f32')
print({ readGBs: round(bandwidth / 1e9, 1), peakTops: round(peak / 1e12, 3) })

let one = 0
for (const rows of values.rows.split(',').map(Number)) {
  const withHead = rows <= 32 // a prefill needs the head for its last row only
  const used = withHead ? weights : weights.slice(0, -1)
  const seconds = median(time(() => pass(used, rows)))
  if (rows === 1) one = seconds
  const read = used.reduce((sum, w) => sum + device.packedBytes(format, w.outFeatures, w.inFeatures), 0)
  const operations = used.reduce((sum, w) => sum + 2 * rows * w.outFeatures * w.inFeatures, 0)
  print({
    rows,
    ms: round(seconds * 1e3, 2),
    GBs: round(read / seconds / 1e9, 1),
    ofBandwidth: round(read / seconds / bandwidth, 3),
    Tops: round(operations / seconds / 1e12, 3),
    ofPeak: round(operations / seconds / peak, 3),
    tokensPerSecond: round(rows / seconds, 1),
    timesOneRow: one === 0 || !withHead ? undefined : round((one * rows) / seconds, 2),
  })
}
print({ readGBsAfterwards: round(measureReadBandwidth(device, base, bytes) / 1e9, 1) })
device.close()

function pass(used: readonly PackedWeight[], rows: number): void {
  for (const w of used) {
    const to = w.outFeatures === HEAD[0] ? logits : out
    device.kernels.linear(to.narrow(0, 0, rows).narrow(1, 0, w.outFeatures), x.narrow(0, 0, rows).narrow(1, 0, w.inFeatures), w)
  }
}

function time(f: () => void): number[] {
  const times: number[] = []
  f()
  for (
    const start = performance.now();
    times.length < 3 || (performance.now() - start < Number(values.seconds) * 1e3 && times.length < 200);
  ) {
    const t = performance.now()
    f()
    times.push((performance.now() - t) / 1e3)
  }
  return times
}
function median(xs: readonly number[]): number {
  return xs.toSorted((a, b) => a - b)[xs.length >> 1]!
}

/** Small numbers, packed as a checkpoint's would be. */
function fill(w: PackedWeight): void {
  const rows = Math.floor(numbers.length / w.inFeatures)
  for (let row = 0; row < w.outFeatures; row += rows) {
    const shape = [Math.min(rows, w.outFeatures - row), w.inFeatures]
    device.pack(w, { bytes: new Uint8Array(numbers.buffer), dtype: 'bf16', shape, strides: [w.inFeatures, 1] }, row, 0)
  }
}
