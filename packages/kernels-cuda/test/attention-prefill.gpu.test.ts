import { Arena, type AttentionOptions, type Device, type FloatDType, PAGE_TOKENS, PagedCache, type Tensor } from '@aphrodite/tensor'
import { createReferenceDevice, Random } from '@aphrodite/testing'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type CudaDevice, createCudaDevice } from '../src/index.ts'
import { describeOnCuda } from './on-cuda.ts'

interface Shape {
  readonly dtype: FloatDType
  readonly kvHeads: number
  readonly group: number
  readonly keyDim: number
  readonly valueDim?: number
  /** Of each sequence: tokens that are in the cache already, and queries. */
  readonly sequences: readonly (readonly [cached: number, fresh: number])[]
  readonly options?: Omit<AttentionOptions, 'scale'>
  readonly alibi?: boolean
  readonly sinks?: boolean
  /** q and out are parts of wider rows that begin this many elements in. */
  readonly beside?: number
}

/** A batch of prompts and chunks on one device, with numbers that the seed determines. */
class PrefillLab {
  readonly #device: Device
  readonly #arena: Arena
  readonly #random: Random
  readonly #q: Tensor
  readonly #batch
  readonly #options: AttentionOptions
  readonly #wholeOut: Tensor
  readonly #out: Tensor
  readonly cache: PagedCache
  readonly pageTables: Tensor

  constructor(device: Device, shape: Shape, seed: number) {
    const { dtype, kvHeads, group, keyDim, valueDim = keyDim, sequences, beside = 0 } = shape
    this.#device = device
    this.#arena = new Arena(device, 1 << 20)
    this.#random = new Random(seed)
    const heads = kvHeads * group
    const lengths = sequences.map(([cached, fresh]) => cached + fresh)
    const pagesOf = lengths.map((n) => Math.ceil(n / PAGE_TOKENS))
    const order = this.#shuffled(pagesOf.reduce((a, b) => a + b, 0))
    const pageShape = { kvHeads, keyDim, valueDim, dtype }
    this.cache = new PagedCache(this.#arena.reserve((order.length + 1) * device.pageBytes(pageShape)), pageShape, order.length + 1)
    const tables = pagesOf.map((n) => order.splice(0, n))
    const columns = Math.max(...pagesOf)
    const slots = lengths.flatMap((n, s) =>
      Array.from({ length: n }, (_, t) => tables[s]![Math.floor(t / PAGE_TOKENS)]! * PAGE_TOKENS + (t % PAGE_TOKENS)),
    )
    const k = this.#floats([slots.length, kvHeads, keyDim], dtype)
    const v = this.#floats([slots.length, kvHeads, valueDim], dtype)
    device.kernels.writeCache(this.cache, k, v, this.#ints(slots))
    const starts = [0]
    for (const [, fresh] of sequences) starts.push(starts.at(-1)! + fresh)
    const tokens = starts.at(-1)!
    this.pageTables = this.#ints(tables.flatMap((pages) => Array.from({ length: columns }, (_, i) => pages[i] ?? 0))).view(
      tables.length,
      columns,
    )
    this.#batch = {
      slots: this.#ints([0]),
      queryStarts: this.#ints(starts),
      contextLengths: this.#ints(lengths),
      pageTables: this.pageTables,
      maxQueryLength: Math.max(...sequences.map(([, fresh]) => fresh)),
      maxContextLength: Math.max(...lengths),
    }
    this.#q = this.#floats([tokens, beside + heads * keyDim], dtype)
      .narrow(1, beside, heads * keyDim)
      .view(tokens, heads, keyDim)
    this.#wholeOut = this.#arena.empty([tokens, beside + heads * valueDim], dtype)
    this.#out = this.#wholeOut.narrow(1, beside, heads * valueDim)
    this.#options = {
      scale: 1 / Math.sqrt(keyDim),
      ...shape.options,
      alibiSlopes: shape.alibi ? this.#floats([heads], 'f32') : undefined,
      sinks: shape.sinks ? this.#floats([heads], 'f32') : undefined,
    }
  }

  /** The op's whole output, with what lies beside it. */
  run(): Float32Array {
    this.#device.upload(this.#wholeOut, new Float32Array(this.#wholeOut.size).fill(-77))
    this.#device.kernels.pagedAttention(this.#out, this.#q, this.cache, this.#batch, this.#options)
    return (this.#device.download(this.#wholeOut) as Float32Array).slice()
  }
  release(): void {
    this.#arena.release()
  }
  #shuffled(n: number): number[] {
    const order = Array.from({ length: n }, (_, i) => i + 1)
    for (let i = n - 1; i > 0; i--) {
      const j = this.#random.below(i + 1)
      ;[order[i], order[j]] = [order[j]!, order[i]!]
    }
    return order
  }
  #ints(values: readonly number[]): Tensor {
    const t = this.#arena.empty([values.length], 'i32')
    this.#device.upload(t, Int32Array.from(values))
    return t
  }
  #floats(shape: readonly number[], dtype: FloatDType): Tensor {
    const t = this.#arena.empty(shape, dtype)
    this.#device.upload(t, this.#random.normals(t.size))
    return t
  }
}

/** The greatest ‖a − b‖ / ‖b‖ of a row; infinite where a number is missing. */
function worstRow(a: Float32Array, b: Float32Array, rows: number): number {
  const width = b.length / rows
  let worst = 0
  for (let r = 0; r < rows; r++) {
    let difference = 0
    let size = 0
    for (let i = r * width; i < (r + 1) * width; i++) {
      const d = a[i]! - b[i]!
      difference += Number.isNaN(d) ? Number.POSITIVE_INFINITY : d * d
      size += b[i]! * b[i]!
    }
    worst = Math.max(worst, Math.sqrt(difference / size))
  }
  return worst
}
/** Probabilities and results are rounded to the type once each. */
const ALLOWED: Readonly<Record<FloatDType, number>> = { f32: 2e-6, f16: 1.5e-3, bf16: 1e-2 }

/** Prompts, chunks that begin anywhere, single tokens between them, a sequence without queries. */
const MIXED: Shape['sequences'] = [
  [0, 7],
  [129, 1],
  [17, 133],
  [5, 0],
  [0, 300],
  [3, 1],
  [64, 64],
  [200, 2],
]
const SHAPES: readonly Shape[] = [
  { dtype: 'bf16', kvHeads: 2, group: 4, keyDim: 128, sequences: MIXED },
  { dtype: 'f16', kvHeads: 1, group: 8, keyDim: 128, sequences: MIXED, beside: 3 },
  { dtype: 'bf16', kvHeads: 2, group: 3, keyDim: 64, sequences: MIXED, beside: 8 },
  ...[32, 40, 80, 96, 112, 160, 192, 256].map((keyDim, i): Shape => {
    const dtype = i % 2 ? 'f16' : 'bf16'
    return { dtype, kvHeads: 1, group: 1 + (i % 3), keyDim, sequences: MIXED }
  }),
  { dtype: 'f16', kvHeads: 1, group: 2, keyDim: 192, valueDim: 128, sequences: MIXED },
  { dtype: 'bf16', kvHeads: 1, group: 2, keyDim: 33, valueDim: 70, sequences: MIXED },
  { dtype: 'bf16', kvHeads: 2, group: 2, keyDim: 64, sequences: MIXED, options: { window: 50 } },
  { dtype: 'bf16', kvHeads: 1, group: 2, keyDim: 128, sequences: MIXED, options: { window: 5, softCap: 2 }, alibi: true, sinks: true },
  { dtype: 'f16', kvHeads: 2, group: 2, keyDim: 64, sequences: MIXED, options: { softCap: 2 } },
  { dtype: 'bf16', kvHeads: 1, group: 7, keyDim: 64, sequences: MIXED, alibi: true },
  { dtype: 'f16', kvHeads: 1, group: 4, keyDim: 128, sequences: MIXED, sinks: true },
  // Few queries behind a long prefix: their keys are split.
  { dtype: 'bf16', kvHeads: 1, group: 4, keyDim: 128, sequences: [[3000, 5]] },
  {
    ...{ dtype: 'f16', kvHeads: 1, group: 2, keyDim: 64, sinks: true, options: { softCap: 5 } },
    sequences: [
      [2000, 9],
      [100, 1],
      [0, 4],
      [1500, 1],
    ],
  },
]

describeOnCuda('attention of several queries a sequence', () => {
  let device: CudaDevice
  const reference = createReferenceDevice()
  beforeAll(() => {
    device = createCudaDevice()
  })
  afterAll(() => device?.close())

  it('agrees with the reference', { timeout: 300_000 }, () => {
    const failures: string[] = []
    SHAPES.forEach((shape, seed) => {
      const [ours, theirs] = [device, reference].map((d) => new PrefillLab(d, shape, seed)) as [PrefillLab, PrefillLab]
      const rows = shape.sequences.reduce((n, [, fresh]) => n + fresh, 0)
      const wrong = worstRow(ours.run(), theirs.run(), rows)
      if (!(wrong < ALLOWED[shape.dtype])) failures.push(`${JSON.stringify(shape)}: ${wrong}`)
      ours.release()
      theirs.release()
    })
    expect(failures).toEqual([])
  })

  it('repeats itself bit by bit', () => {
    for (const sequences of [MIXED, [[5000, 12]]] as Shape['sequences'][]) {
      const lab = new PrefillLab(device, { dtype: 'bf16', kvHeads: 8, group: 4, keyDim: 128, sequences }, 5)
      const first = lab.run()
      for (let i = 0; i < 20; i++) expect(Buffer.from(lab.run().buffer).equals(Buffer.from(first.buffer))).toBe(true)
      lab.release()
    }
  })

  it('reads nothing outside the cache when the tables are wrong, and other sequences do not notice', () => {
    const sequences: Shape['sequences'] = [
      [30, 100],
      [20, 100],
    ]
    const lab = new PrefillLab(device, { dtype: 'bf16', kvHeads: 2, group: 4, keyDim: 128, sequences }, 7)
    const before = lab.run()
    const tables = device.download(lab.pageTables) as Int32Array
    for (const wrong of [-1, -(2 ** 31), 2 ** 31 - 1, lab.cache.pages]) {
      device.upload(
        lab.pageTables,
        Int32Array.from(tables, (page, i) => (i < tables.length / 2 ? page : wrong)),
      )
      const after = lab.run()
      expect(after.subarray(0, before.length / 2)).toEqual(before.subarray(0, before.length / 2))
    }
    lab.release()
  })
})
