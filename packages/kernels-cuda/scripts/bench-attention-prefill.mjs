// Attention of prompts and of chunks behind a cached prefix, alone: time of a call and TFLOP/s of the pairs that are not masked.
//   node scripts/bench-attention-prefill.mjs [part of a name …]
// Ten calls follow one another in a captured graph; the pages of a sequence lie in random order.
import { Arena, PAGE_TOKENS, PagedCache } from '@aphrodite/tensor'
import { Random } from '@aphrodite/testing'
import { createCudaDevice } from '../dist/index.js'

const SHAPES = [
  { name: '8k, 32:8 of 128', sequences: [[0, 8192]] },
  { name: '8k, 32:8 of 128, f16', sequences: [[0, 8192]], dtype: 'f16' },
  { name: '8k, e4m3 cache', sequences: [[0, 8192]], cacheDtype: 'f8e4m3' },
  { name: '8k, 32:8 of 64', sequences: [[0, 8192]], dim: 64 },
  { name: '8k, 32:32 of 96', sequences: [[0, 8192]], dim: 96, kvHeads: 32, group: 1 },
  { name: '8k, 16:8 of 256', sequences: [[0, 8192]], dim: 256, group: 2 },
  { name: '2k, 32:8 of 128', sequences: [[0, 2048]] },
  { name: '32k, 32:8 of 128', sequences: [[0, 32768]] },
  { name: '8k, window 1k', sequences: [[0, 8192]], options: { window: 1024 } },
  { name: '8k, soft cap', sequences: [[0, 8192]], options: { softCap: 50 } },
  { name: '512 behind 7,680', sequences: [[7680, 512]] },
  { name: '32 behind 32,000', sequences: [[32000, 32]] },
  { name: '32 behind 32,000, e4m3 cache', sequences: [[32000, 32]], cacheDtype: 'f8e4m3' },
  { name: '16 × 512', sequences: Array.from({ length: 16 }, () => [0, 512]) },
  { name: '64 × 128', sequences: Array.from({ length: 64 }, () => [0, 128]) },
]
const CALLS = 10
const REPLAYS = 9

const wanted = process.argv.slice(2)
const device = createCudaDevice()
const { kernels } = device
const random = new Random(1)

async function milliseconds(call) {
  const graph = device.capture(() => {
    for (let i = 0; i < CALLS; i++) call()
  })
  const times = []
  for (let i = 0; i < REPLAYS; i++) {
    await device.synchronize()
    const start = process.hrtime.bigint()
    graph.replay()
    await device.synchronize()
    times.push(Number(process.hrtime.bigint() - start) / 1e6 / CALLS)
  }
  graph.release()
  return times.sort((a, b) => a - b)[REPLAYS >> 1]
}

/** Random numbers: one piece is made here and copied on the device. */
function fillRandom(tensor) {
  const rows = Math.min(tensor.dim(0), 512)
  device.upload(tensor.narrow(0, 0, rows), random.normals((tensor.size / tensor.dim(0)) * rows))
  for (let at = rows; at < tensor.dim(0); at += rows) {
    const n = Math.min(rows, tensor.dim(0) - at)
    kernels.copy(tensor.narrow(0, at, n), tensor.narrow(0, 0, n))
  }
}

async function measure({ sequences, kvHeads = 8, group = 4, dim = 128, dtype = 'bf16', cacheDtype = dtype, options = {} }) {
  const arena = new Arena(device, 1 << 20)
  const heads = kvHeads * group
  const filled = (shape, type, values) => {
    const t = arena.empty(shape, type)
    device.upload(t, values)
    return t
  }
  const lengths = sequences.map(([cached, fresh]) => cached + fresh)
  const pagesOf = lengths.map((n) => Math.ceil(n / PAGE_TOKENS))
  const total = pagesOf.reduce((a, b) => a + b, 1)
  const order = Array.from({ length: total - 1 }, (_, i) => i + 1)
  for (let i = order.length - 1; i > 0; i--) {
    const j = random.below(i + 1)
    ;[order[i], order[j]] = [order[j], order[i]]
  }
  const shape = { kvHeads, keyDim: dim, valueDim: dim, dtype: cacheDtype }
  const cache = new PagedCache(arena.reserve(total * device.pageBytes(shape)), shape, total)
  const rows = arena.empty([total * PAGE_TOKENS, kvHeads * dim], dtype)
  fillRandom(rows)
  const slots = filled(
    [total * PAGE_TOKENS],
    'i32',
    Int32Array.from({ length: total * PAGE_TOKENS }, (_, i) => i),
  )
  const kv = rows.view(total * PAGE_TOKENS, kvHeads, dim)
  kernels.writeCache(cache, kv, kv, slots)
  const columns = Math.max(...pagesOf)
  const tables = pagesOf.map((n) => order.splice(0, n))
  const starts = [0]
  for (const [, fresh] of sequences) starts.push(starts.at(-1) + fresh)
  const tokens = starts.at(-1)
  const batch = {
    slots,
    queryStarts: filled([starts.length], 'i32', Int32Array.from(starts)),
    contextLengths: filled([lengths.length], 'i32', Int32Array.from(lengths)),
    pageTables: filled(
      [tables.length, columns],
      'i32',
      Int32Array.from(tables.flatMap((pages) => Array.from({ length: columns }, (_, i) => pages[i] ?? 0))),
    ),
    maxQueryLength: Math.max(...sequences.map(([, fresh]) => fresh)),
    maxContextLength: Math.max(...lengths),
  }
  const q = arena.empty([tokens, heads * dim], dtype)
  fillRandom(q)
  const out = arena.empty([tokens, heads * dim], dtype)
  const ms = await milliseconds(() =>
    kernels.pagedAttention(out, q.view(tokens, heads, dim), cache, batch, { scale: 1 / Math.sqrt(dim), ...options }),
  )
  arena.release()
  const { window = Number.POSITIVE_INFINITY } = options
  let pairs = 0
  for (const [cached, fresh] of sequences) for (let i = 0; i < fresh; i++) pairs += Math.min(cached + i + 1, window)
  return `${ms.toFixed(3).padStart(9)} ms ${((pairs * heads * dim * 4) / ms / 1e9).toFixed(0).padStart(5)} TFLOP/s`
}

console.log(device.description)
for (const shape of SHAPES.filter((s) => wanted.length === 0 || wanted.some((w) => s.name.includes(w))))
  console.log(`${shape.name.padEnd(30)}${await measure(shape)}`)
device.close()
