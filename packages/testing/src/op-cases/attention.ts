import {
  type AttentionOptions,
  CACHE_DTYPES,
  type CacheDType,
  type Device,
  type FloatDType,
  PAGE_TOKENS,
  PagedCache,
  type RotaryOptions,
  type Tensor,
} from '@aphrodite/tensor'
import { describeTensor, FLOATS, type OpCase, offsetsOf, rounded, type Tolerance } from './case.ts'
import type { CaseMemory } from './memory.ts'

interface RotaryCase {
  readonly tokens: number
  readonly heads: number
  readonly kvHeads: number
  readonly dim: number
  readonly rotaryDim: number
  readonly interleaved?: boolean
  readonly selector?: boolean
  /** q and k are views of wider rows, as after a merged projection. */
  readonly strided?: boolean
}

const ROTARY: readonly RotaryCase[] = [
  { tokens: 1, heads: 1, kvHeads: 1, dim: 2, rotaryDim: 2 },
  { tokens: 3, heads: 4, kvHeads: 2, dim: 64, rotaryDim: 64, strided: true },
  { tokens: 7, heads: 3, kvHeads: 1, dim: 34, rotaryDim: 34 },
  { tokens: 17, heads: 2, kvHeads: 2, dim: 33, rotaryDim: 12, strided: true },
  { tokens: 5, heads: 4, kvHeads: 1, dim: 64, rotaryDim: 64, interleaved: true },
  { tokens: 9, heads: 2, kvHeads: 1, dim: 48, rotaryDim: 22, interleaved: true, strided: true },
  { tokens: 8, heads: 2, kvHeads: 2, dim: 96, rotaryDim: 96, selector: true },
  { tokens: 2, heads: 8, kvHeads: 8, dim: 128, rotaryDim: 128 },
]

function rotary(dtype: FloatDType, c: RotaryCase): OpCase {
  const { tokens, heads, kvHeads, dim, rotaryDim, interleaved = false, selector = false, strided = false } = c
  const flags = `${interleaved ? ' interleaved' : ''}${selector ? ' selector' : ''}${strided ? ' strided' : ''}`
  const rows = 64
  return {
    op: 'rotary',
    name: `rotary ${dtype} [${tokens}, ${heads}+${kvHeads}, ${dim}] of ${rotaryDim}${flags}`,
    // A difference of two products: its error follows their size.
    tolerance: rounded(dtype, 2, dtype === 'f32' ? 2e-7 : 0),
    prepare(memory, { kernels }) {
      const stride = (n: number) => (strided ? n * dim + 2 * dim : undefined)
      const q = memory.output('q', [tokens, heads, dim], dtype, { stride: stride(heads) })
      const k = memory.output('k', [tokens, kvHeads, dim], dtype, { stride: stride(kvHeads) })
      const positions = memory.ints(Array.from({ length: tokens }, () => memory.random.below(rows)))
      const angles = Array.from({ length: rows * (selector ? 2 : 1) }, () =>
        Array.from({ length: rotaryDim / 2 }, () => memory.random.uniform() * 2 * Math.PI),
      )
      const table = angles.flatMap((row) => [...row.map(Math.cos), ...row.map(Math.sin)])
      const cosSin = memory.values(table, [angles.length, rotaryDim])
      const options: RotaryOptions = selector
        ? { interleaved, selector: memory.ints(Array.from({ length: tokens }, (_, i) => 30 + i)), bound: 33 }
        : { interleaved }
      return () => kernels.rotary(q, k, positions, cosSin, options)
    },
  }
}

/** Cached tokens before this step, and new ones, of each sequence. */
type Sequence = readonly [cached: number, fresh: number]

interface AttentionCase {
  readonly label: string
  readonly sequences: readonly Sequence[]
  readonly heads: number
  readonly kvHeads: number
  readonly keyDim: number
  readonly valueDim?: number
  readonly options?: Omit<AttentionOptions, 'scale'>
  readonly alibi?: boolean
  readonly sinks?: boolean
  readonly strided?: boolean
  /** Deviation of keys and values; default 1. */
  readonly spread?: number
}

const DECODE: readonly Sequence[] = [
  [0, 1],
  [1, 1],
  [15, 1],
  [16, 1],
  [33, 1],
  [100, 1],
  [299, 1],
]
const MIXED: readonly Sequence[] = [
  [0, 7],
  [129, 1],
  [17, 33],
  [0, 0],
  [3, 1],
  [0, 100],
]

const ATTENTION: readonly AttentionCase[] = [
  { label: 'one token', sequences: [[0, 1]], heads: 1, kvHeads: 1, keyDim: 2 },
  { label: 'decode', sequences: DECODE, heads: 4, kvHeads: 1, keyDim: 64 },
  { label: 'decode', sequences: DECODE, heads: 6, kvHeads: 2, keyDim: 33 },
  { label: 'decode strided', sequences: DECODE, heads: 4, kvHeads: 4, keyDim: 128, strided: true },
  { label: 'prefill', sequences: [[0, 129]], heads: 4, kvHeads: 2, keyDim: 64 },
  { label: 'mixed', sequences: MIXED, heads: 4, kvHeads: 2, keyDim: 32, strided: true },
  { label: 'mixed', sequences: MIXED, heads: 7, kvHeads: 1, keyDim: 80 },
  { label: 'values of another size', sequences: MIXED, heads: 4, kvHeads: 2, keyDim: 48, valueDim: 17 },
  { label: 'window 5', sequences: MIXED, heads: 4, kvHeads: 2, keyDim: 32, options: { window: 5 } },
  { label: 'window 64', sequences: [...MIXED, ...DECODE], heads: 2, kvHeads: 1, keyDim: 64, options: { window: 64 } },
  { label: 'soft cap', sequences: MIXED, heads: 4, kvHeads: 2, keyDim: 32, options: { softCap: 2 } },
  { label: 'ALiBi', sequences: MIXED, heads: 4, kvHeads: 2, keyDim: 32, alibi: true },
  { label: 'sinks', sequences: MIXED, heads: 4, kvHeads: 2, keyDim: 32, sinks: true },
  { label: 'sinks in a window', sequences: [...MIXED, ...DECODE], heads: 4, kvHeads: 4, keyDim: 64, sinks: true, options: { window: 17 } },
  {
    label: 'long',
    sequences: [
      [1100, 1],
      [700, 20],
    ],
    heads: 2,
    kvHeads: 1,
    keyDim: 16,
  },
]

/** Caches of 8-bit floats: every head size, since each has products of its own, and everything that changes scores. */
const EIGHT_BIT: readonly AttentionCase[] = [
  ...[32, 64, 80, 96, 112, 128, 192, 256].map((keyDim) => ({ label: 'mixed', sequences: MIXED, heads: 4, kvHeads: 2, keyDim })),
  { label: 'decode', sequences: DECODE, heads: 8, kvHeads: 1, keyDim: 64 },
  { label: 'decode', sequences: DECODE, heads: 24, kvHeads: 2, keyDim: 128, strided: true },
  ...ATTENTION.filter(({ label }) => ['prefill', 'window 64', 'soft cap', 'ALiBi', 'sinks in a window', 'long'].includes(label)),
]

/** A cache with every sequence's tokens in it, the pages in a shuffled order, the last tokens of each to be written by the call. */
function fillCache(memory: CaseMemory, device: Device, c: AttentionCase, dtype: FloatDType, cacheDtype: CacheDType) {
  const { kvHeads, keyDim, valueDim = keyDim } = c
  const pagesOf = ([cached, fresh]: Sequence) => Math.ceil((cached + fresh) / PAGE_TOKENS)
  const total = c.sequences.reduce((sum, s) => sum + pagesOf(s), 1)
  const order = Array.from({ length: total - 1 }, (_, i) => i + 1)
  for (let i = order.length - 1; i > 0; i--) {
    const j = memory.random.below(i + 1)
    ;[order[i], order[j]] = [order[j]!, order[i]!]
  }
  const shape = { kvHeads, keyDim, valueDim, dtype: cacheDtype }
  const cache = new PagedCache(memory.arena.reserve(total * device.pageBytes(shape)), shape, total)
  const maxPages = Math.max(1, ...c.sequences.map(pagesOf))
  const tables = c.sequences.map((s) => order.splice(0, pagesOf(s)))
  const slot = (s: number, t: number) => tables[s]![Math.floor(t / PAGE_TOKENS)]! * PAGE_TOKENS + (t % PAGE_TOKENS)
  const slotsOf = (from: (s: Sequence) => number, to: (s: Sequence) => number) =>
    c.sequences.flatMap((s, i) => Array.from({ length: to(s) - from(s) }, (_, t) => slot(i, from(s) + t)))
  const put = (slots: readonly number[]) => {
    const n = Math.max(slots.length, 1)
    const deviation = c.spread ?? 1
    const k = memory.floats([n, kvHeads, keyDim], dtype, { stride: c.strided ? kvHeads * keyDim + 40 : undefined, deviation })
    const v = memory.floats([n, kvHeads, valueDim], dtype, { stride: c.strided ? kvHeads * valueDim + 8 : undefined, deviation })
    const where = memory.ints(slots.length ? slots : [0])
    return () => device.kernels.writeCache(cache, k, v, where)
  }
  put(
    slotsOf(
      () => 0,
      ([cached]) => cached,
    ),
  )()
  const freshSlots = slotsOf(
    ([cached]) => cached,
    ([cached, fresh]) => cached + fresh,
  )
  const write = put(freshSlots)
  const starts = offsetsOf(c.sequences.map(([, fresh]) => fresh))
  const batch = {
    slots: memory.ints(freshSlots),
    queryStarts: memory.ints(starts),
    contextLengths: memory.ints(c.sequences.map(([cached, fresh]) => cached + fresh)),
    pageTables: memory.ints(
      tables.flatMap((pages) => Array.from({ length: maxPages }, (_, i) => pages[i] ?? 0)),
      [c.sequences.length, maxPages],
    ),
    maxQueryLength: Math.max(...c.sequences.map(([, fresh]) => fresh)),
    maxContextLength: Math.max(...c.sequences.map(([cached, fresh]) => cached + fresh)),
  }
  return { cache, write, batch, tokens: starts.at(-1)! }
}

/** Averages of values: the error follows the size of the values, which is near that of the largest averages. */
function averaged(dtype: FloatDType, cacheDtype: CacheDType): Tolerance {
  if (cacheDtype === 'f8e4m3' || cacheDtype === 'f8e5m2') {
    const reason = 'units that multiply half-width floats take 8-bit floats as those, which hold them, and probabilities rounded to them'
    return { ...rounded(dtype, 4, dtype === 'bf16' ? 2 ** -6 : 2 ** -9), reason }
  }
  if (dtype !== cacheDtype || dtype === 'f32') return rounded(dtype, 4, 1e-5)
  const reason = 'units that multiply half-width floats take probabilities rounded to them: by 2^-9 of each at most for bf16, 2^-12 for f16'
  return { ...rounded(dtype, 4, dtype === 'bf16' ? 2 ** -6 : 2 ** -9), reason }
}

function attention(op: 'pagedAttention' | 'writeCache', c: AttentionCase, dtype: FloatDType, cacheDtype: CacheDType): OpCase {
  const { heads, kvHeads, keyDim, valueDim = keyDim } = c
  return {
    op,
    name: `${op} ${c.label} ${describeTensor(dtype, [c.sequences.length, heads, keyDim])} of ${kvHeads} kv heads, cache ${cacheDtype}`,
    tolerance: averaged(dtype, cacheDtype),
    prepare(memory, device) {
      const { cache, write, batch, tokens } = fillCache(memory, device, c, dtype, cacheDtype)
      const out = memory.output('out', [tokens, heads * valueDim], dtype, { stride: c.strided ? heads * valueDim + 24 : undefined })
      const q = memory.floats([tokens, heads, keyDim], dtype, { stride: c.strided ? heads * keyDim + 48 : undefined, deviation: 2 })
      const perHead = (on: boolean | undefined): Tensor | undefined =>
        on ? memory.values(Array.from({ length: heads }, () => memory.random.uniform())) : undefined
      const options: AttentionOptions = {
        scale: 1 / Math.sqrt(keyDim),
        ...c.options,
        alibiSlopes: perHead(c.alibi),
        sinks: perHead(c.sinks),
      }
      return () => {
        write()
        device.kernels.pagedAttention(out, q, cache, batch, options)
      }
    },
  }
}

export const ATTENTION_CASES: readonly OpCase[] = [
  ...FLOATS.flatMap((dtype) => ROTARY.map((c) => rotary(dtype, c))),
  ...FLOATS.flatMap((dtype) => ATTENTION.map((c) => attention('pagedAttention', c, dtype, dtype))),
  ...ATTENTION.filter((c) => c.label === 'mixed').flatMap((c) => [
    attention('pagedAttention', c, 'f32', 'bf16'),
    attention('pagedAttention', c, 'bf16', 'f32'),
  ]),
  ...FLOATS.flatMap((dtype) => EIGHT_BIT.map((c) => attention('pagedAttention', c, dtype, 'f8e4m3'))),
  ...EIGHT_BIT.map((c) => attention('pagedAttention', c, 'bf16', 'f8e5m2')),
  // Contexts of one token give the values as they are: rounding below the least normal number, and beyond the greatest.
  ...FLOATS.flatMap((dtype) =>
    (
      [
        ['f8e4m3', 0.01],
        ['f8e4m3', 300],
        ['f8e5m2', 3e-5],
        ['f8e5m2', 4e4],
      ] as const
    ).map(([cacheDtype, spread]) => {
      const sequences = Array.from({ length: 20 }, (): Sequence => [0, 1])
      return attention(
        'writeCache',
        { label: `numbers around ${spread}`, sequences, heads: 2, kvHeads: 2, keyDim: 32, spread },
        dtype,
        cacheDtype,
      )
    }),
  ),
  // What writeCache wrote can only be seen through attention: a context of one token gives its value, a longer one weighs keys.
  ...FLOATS.flatMap((dtype) =>
    CACHE_DTYPES.map((cacheDtype) =>
      attention(
        'writeCache',
        { label: 'short', sequences: DECODE.slice(0, 4), heads: 2, kvHeads: 2, keyDim: 17, strided: true },
        dtype,
        cacheDtype,
      ),
    ),
  ),
]
