// Attention over a paged cache on the CPU, beside what the machine can do, measured in the same run: decoding against read
// bandwidth over the very cache, prefills against the peak of multiplications in registers. Every layer has pages of its own,
// in random order as after hours of serving, and the cache is larger than any processor's. JSON lines; the first is the configuration.
//
//   node benchmarks/dist/cpu-attention.js [--dtype bf16] [--threads 0] [--isa auto] [--dims 64,128] [--heads 32] [--kv-heads 8]
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { type CpuDevice, createCpuDevice, type Isa, measurePeak, measureReadBandwidth } from '@aphrodite/kernels-cpu'
import { Arena, type AttentionBatch, type FloatDType, PAGE_TOKENS, PagedCache, type Tensor } from '@aphrodite/tensor'

const { values } = parseArgs({
  options: {
    dtype: { type: 'string', default: 'bf16' },
    threads: { type: 'string', default: '0' },
    isa: { type: 'string', default: 'auto' },
    dims: { type: 'string', default: '64,128' },
    heads: { type: 'string', default: '32' },
    'kv-heads': { type: 'string', default: '8' },
    megabytes: { type: 'string', default: '384' },
    seconds: { type: 'string', default: '0.7' },
    'no-pin': { type: 'boolean', default: false },
  },
})
const dtype = values.dtype as FloatDType
const heads = Number(values.heads)
const kvHeads = Number(values['kv-heads'])
const print = (line: object): void => console.log(JSON.stringify(line))
const round = (x: number, digits: number): number => Number(x.toFixed(digits))

interface Work {
  readonly name: string
  readonly sequences: number
  /** Tokens that are there already, and new ones, of each sequence. */
  readonly context: number
  readonly queries: number
}
const WORK: Work[] = [
  { name: 'decode', sequences: 1, context: 127, queries: 1 },
  { name: 'decode', sequences: 1, context: 1023, queries: 1 },
  { name: 'decode', sequences: 1, context: 8191, queries: 1 },
  { name: 'decode', sequences: 8, context: 1023, queries: 1 },
  { name: 'prefill', sequences: 1, context: 0, queries: 512 },
  { name: 'prefill', sequences: 1, context: 7680, queries: 512 },
]

const device = createCpuDevice({ threads: Number(values.threads), isa: values.isa as Isa | 'auto', pin: !values['no-pin'] })
print({
  benchmark: 'cpu-attention',
  device: device.description,
  cpu: cpus()[0]?.model,
  node: process.version,
  dtype,
  heads,
  kvHeads,
  cacheMegabytes: Number(values.megabytes),
  pinned: !values['no-pin'],
})
for (const dim of values.dims.split(',').map(Number)) measure(device, dim)
device.close()

function measure(device: CpuDevice, dim: number): void {
  const shape = { kvHeads, keyDim: dim, valueDim: dim, dtype }
  const pageBytes = device.pageBytes(shape)
  const pages = Math.floor((Number(values.megabytes) * 1e6) / pageBytes)
  const arena = new Arena(device, pages * pageBytes)
  const cache = new PagedCache(arena.reserve(pages * pageBytes), shape, pages)
  const inputs = new Arena(device)
  fill(cache, inputs)
  const order = shuffled(pages - 1).map((page) => page + 1)
  for (const work of WORK) {
    const perLayer = work.sequences * Math.ceil((work.context + work.queries) / PAGE_TOKENS)
    const layers = Math.min(256, Math.floor(order.length / perLayer))
    const batches = Array.from({ length: layers }, (_, i) => batchOf(work, order.slice(i * perLayer, (i + 1) * perLayer), inputs))
    const tokens = work.sequences * work.queries
    const q = inputs.empty([tokens, heads, dim], dtype)
    device.upload(
      q,
      Float32Array.from({ length: tokens * heads * dim }, (_, i) => Math.sin(i)),
    )
    const out = inputs.empty([tokens, heads * dim], dtype)
    const options = { scale: dim ** -0.5 }
    const decode = work.name === 'decode'
    const limit = decode ? measureReadBandwidth(device, cache.address, pages * pageBytes) : measurePeak(device, dtype)
    const seconds =
      time(() => {
        for (const batch of batches) device.kernels.pagedAttention(out, q, cache, batch, options)
      }) / layers
    // Keys and values once; a multiplication and an addition for each number of a key and a value that a query sees.
    const bytes = work.sequences * (work.context + work.queries) * (pageBytes / PAGE_TOKENS)
    const seen = work.sequences * (work.queries * work.context + (work.queries * (work.queries + 1)) / 2)
    const operations = seen * heads * 4 * dim
    print({
      ...work,
      head: dim,
      layers,
      microsecondsALayer: round(seconds * 1e6, 1),
      ...(decode
        ? { GBs: round(bytes / seconds / 1e9, 1), readGBs: round(limit / 1e9, 1), ofBandwidth: round(bytes / seconds / limit, 3) }
        : {
            Tops: round(operations / seconds / 1e12, 3),
            peakTops: round(limit / 1e12, 3),
            ofPeak: round(operations / seconds / limit, 3),
          }),
    })
  }
  inputs.release()
  arena.release()
}

/** Numbers of ordinary size in every place. */
function fill(cache: PagedCache, memory: Arena): void {
  const { kvHeads, keyDim } = cache.shape
  const tokens = 1024
  const rows = memory.empty([tokens, kvHeads, keyDim], dtype)
  device.upload(
    rows,
    Float32Array.from({ length: tokens * kvHeads * keyDim }, (_, i) => Math.sin(i * 1.7)),
  )
  const slots = memory.empty([tokens], 'i32')
  for (let first = 0; first < cache.pages * PAGE_TOKENS; first += tokens) {
    const n = Math.min(tokens, cache.pages * PAGE_TOKENS - first)
    device.upload(
      slots,
      Int32Array.from({ length: tokens }, (_, i) => first + Math.min(i, n - 1)),
    )
    device.kernels.writeCache(cache, rows.narrow(0, 0, n), rows.narrow(0, 0, n), slots.narrow(0, 0, n))
  }
}

function batchOf(work: Work, pages: readonly number[], memory: Arena): AttentionBatch {
  const ints = (shape: number[], data: ArrayLike<number>): Tensor => {
    const t = memory.empty(shape, 'i32')
    device.upload(t, Int32Array.from(data))
    return t
  }
  const { sequences, queries } = work
  const length = work.context + queries
  return {
    slots: ints([sequences * queries], new Int32Array(sequences * queries)),
    queryStarts: ints(
      [sequences + 1],
      Array.from({ length: sequences + 1 }, (_, s) => s * queries),
    ),
    contextLengths: ints(
      [sequences],
      Array.from({ length: sequences }, () => length),
    ),
    pageTables: ints([sequences, pages.length / sequences], pages),
    maxQueryLength: queries,
    maxContextLength: length,
  }
}

function shuffled(n: number): number[] {
  const order = Array.from({ length: n }, (_, i) => i)
  let seed = 1
  for (let i = n - 1; i > 0; i--) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
    const j = seed % (i + 1)
    ;[order[i], order[j]] = [order[j]!, order[i]!]
  }
  return order
}

/** Median of the seconds that f takes. */
function time(f: () => void): number {
  f()
  const times: number[] = []
  const end = performance.now() + Number(values.seconds) * 1000
  do {
    const begin = performance.now()
    f()
    times.push((performance.now() - begin) / 1000)
  } while (performance.now() < end || times.length < 5)
  return times.toSorted((a, b) => a - b)[times.length >> 1]!
}
