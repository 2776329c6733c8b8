// Attention of one token a sequence, alone: µs a call and its share of the measured read bandwidth.
//   node scripts/bench-attention-decode.mjs [part of a name …]
// Calls follow one another in a captured graph, over as many caches as are larger than L2 together. `plain` is pagedAttention,
// `fused` what the fusion pass makes of rotary, writeCache and pagedAttention.
import { Arena, PAGE_TOKENS, PagedCache, Tensor } from '@aphrodite/tensor'
import { Random } from '@aphrodite/testing'
import { createCudaDevice } from '../dist/index.js'

const SHAPES = [
  { name: '8B, 1 × 256', sequences: 1, context: 256 },
  { name: '8B, 1 × 2k', sequences: 1, context: 2048 },
  { name: '8B, 1 × 8k', sequences: 1, context: 8192 },
  { name: '8B, 1 × 32k', sequences: 1, context: 32768 },
  { name: '8B, 16 × 2k', sequences: 16, context: 2048 },
  { name: '8B, 64 × 1k', sequences: 64, context: 1024 },
  { name: '8B, 256 × 512', sequences: 256, context: 512 },
  { name: '1B, 1 × 8k', sequences: 1, context: 8192, dim: 64 },
  { name: '1B, 64 × 1k', sequences: 64, context: 1024, dim: 64 },
  { name: '0.6B, 1 × 256', sequences: 1, context: 256, group: 2 },
  { name: '0.6B, 256 × 600', sequences: 256, context: 600, group: 2 },
  { name: 'group of 16, 1 × 32k', sequences: 1, context: 32768, kvHeads: 4, group: 16 },
  { name: 'group of 1, 16 × 1k', sequences: 16, context: 1024, kvHeads: 32, group: 1 },
  { name: 'head 256, 1 × 8k', sequences: 1, context: 8192, kvHeads: 4, dim: 256 },
  { name: 'f32, 1 × 8k', sequences: 1, context: 8192, dtype: 'f32' },
]
/** No cache is used twice in a graph, as in a model: attention may read it ahead. */
const LEAST_CALLS = 8
const MEMORY = 400e6
const REPLAYS = 20
const NORMALS = new Random(2).normals(1 << 20)

const wanted = process.argv.slice(2)
const device = createCudaDevice()
const { kernels } = device
const random = new Random(1)
let arena = new Arena(device, 1 << 20)
const filled = (shape, dtype, values) => {
  const t = arena.empty(shape, dtype)
  device.upload(t, values)
  return t
}
/** Random numbers everywhere: one piece is made here and copied on the device. */
function fillRandom(address, bytes, dtype) {
  const size = dtype === 'f32' ? 4 : 2
  const piece = NORMALS.length
  const source = filled([piece], dtype, NORMALS)
  for (let at = 0; at < bytes / size; at += piece) {
    const n = Math.min(piece, bytes / size - at)
    const part = (from) => new Tensor(from, dtype, [n], [1], arena, source.block)
    kernels.copy(part(address + at * size), part(source.address))
  }
}

/** Of one call, of so many in a graph. */
async function microseconds(calls, enqueue) {
  const graph = device.capture(enqueue)
  const times = []
  for (let i = 0; i < REPLAYS; i++) {
    await device.synchronize()
    const start = process.hrtime.bigint()
    graph.replay()
    await device.synchronize()
    times.push(Number(process.hrtime.bigint() - start) / 1e3 / calls)
  }
  graph.release()
  return times.sort((a, b) => a - b)[REPLAYS >> 1]
}

async function measure({ sequences, context, kvHeads = 8, group = 4, dim = 128, dtype = 'bf16' }, read) {
  const heads = kvHeads * group
  const pages = Math.ceil(context / PAGE_TOKENS)
  const shape = { kvHeads, keyDim: dim, valueDim: dim, dtype }
  const bytes = sequences * pages * device.pageBytes(shape)
  const total = sequences * pages + 1
  const caches = Array.from({ length: Math.min(64, Math.max(LEAST_CALLS, Math.ceil(MEMORY / bytes))) }, () => {
    const address = arena.reserve(total * device.pageBytes(shape))
    fillRandom(address, total * device.pageBytes(shape), dtype)
    return new PagedCache(address, shape, total)
  })
  const order = Array.from({ length: sequences * pages }, (_, i) => i + 1)
  for (let i = order.length - 1; i > 0; i--) {
    const j = random.below(i + 1)
    ;[order[i], order[j]] = [order[j], order[i]]
  }
  const last = (s) => order[s * pages + Math.floor((context - 1) / PAGE_TOKENS)] * PAGE_TOKENS + ((context - 1) % PAGE_TOKENS)
  const each = (n, f) => Int32Array.from({ length: n }, (_, i) => f(i))
  const batch = {
    slots: filled([sequences], 'i32', each(sequences, last)),
    queryStarts: filled(
      [sequences + 1],
      'i32',
      each(sequences + 1, (i) => i),
    ),
    contextLengths: filled(
      [sequences],
      'i32',
      each(sequences, () => context),
    ),
    pageTables: filled([sequences, pages], 'i32', Int32Array.from(order)),
    maxQueryLength: 1,
    maxContextLength: context,
  }
  const calls = caches.length
  const width = (heads + 2 * kvHeads) * dim
  const fresh = arena.empty([calls * sequences, width], dtype)
  fillRandom(fresh.address, calls * sequences * width * (dtype === 'f32' ? 4 : 2), dtype)
  const rows = arena.empty([calls * sequences, width], dtype)
  kernels.copy(rows, fresh)
  const part = (i, from, n) =>
    rows
      .narrow(0, i * sequences, sequences)
      .narrow(1, from * dim, n * dim)
      .view(sequences, n, dim)
  const out = arena.empty([sequences, heads * dim], dtype)
  const positions = filled(
    [sequences],
    'i32',
    each(sequences, () => context - 1),
  )
  const angles = Float32Array.from({ length: context * dim }, (_, i) => Math.cos(i))
  const cosSin = filled([context, dim], 'f32', angles)
  const options = { scale: 1 / Math.sqrt(dim) }

  const plain = await microseconds(calls, () => {
    for (let i = 0; i < calls; i++) kernels.pagedAttention(out, part(i, 0, heads), caches[i], batch, options)
  })
  const fused = await microseconds(calls, () => {
    for (let i = 0; i < calls; i++) {
      const q = part(i, 0, heads)
      const k = part(i, heads, kvHeads)
      kernels.rotary(q, k, positions, cosSin, {})
      kernels.writeCache(caches[i], k, part(i, heads + kvHeads, kvHeads), batch.slots)
      kernels.pagedAttention(out, q, caches[i], batch, options)
    }
    kernels.copy(rows, fresh) // nobody needs what was turned in place, so it may stay as it was
  })
  arena.release()
  arena = new Arena(device, 1 << 20)
  const share = (us) => `${((bytes / read / us) * 1e8).toFixed(0)} %`.padStart(6)
  const time = (us) => us.toFixed(2).padStart(9)
  return `${(bytes / 1e6).toFixed(1).padStart(7)} MB   plain ${time(plain)} µs ${share(plain)}   fused ${time(fused)} µs ${share(fused)}`
}

const bytes = 1 << 30
const address = device.allocate(bytes)
let seconds = Number.POSITIVE_INFINITY
for (let i = 0; i < 5; i++) seconds = Math.min(seconds, device.readSeconds(address, bytes))
device.release(address)
const read = bytes / seconds
console.log(`${device.description}, reads ${(read / 1e9).toFixed(0)} GB/s`)
for (const shape of SHAPES) {
  if (wanted.length > 0 && !wanted.some((w) => shape.name.includes(w))) continue
  console.log(`${shape.name.padEnd(22)} ${await measure(shape, read)}`)
}
device.close()
