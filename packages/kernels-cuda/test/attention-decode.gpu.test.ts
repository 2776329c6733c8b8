import {
  Arena,
  type AttentionBatch,
  type AttentionOptions,
  type Device,
  type FloatDType,
  PAGE_TOKENS,
  PagedCache,
  type Tensor,
} from '@aphrodite/tensor'
import { createReferenceDevice, Random } from '@aphrodite/testing'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { CudaDevice } from '../src/device.ts'
import { fusedAttention, fusedAttentionFits, fusedRotaryWrite } from '../src/fused-attention.ts'
import type { RotaryExtras } from '../src/fused-kernels.ts'
import { findNative } from '../src/native.ts'
import { describeOnCuda } from './on-cuda.ts'

const found = findNative()
const native = 'native' in found ? found.native : undefined

interface Shape {
  readonly dtype: FloatDType
  readonly kvHeads: number
  readonly group: number
  readonly keyDim: number
  readonly valueDim?: number
  /** Context of each sequence, its new token included. */
  readonly lengths: readonly number[]
  readonly options?: Omit<AttentionOptions, 'scale'>
  readonly alibi?: boolean
  readonly sinks?: boolean
  readonly interleaved?: boolean
  readonly rotaryDim?: number
  readonly norm?: boolean
}

/** Everything of a decode step's attention on one device, with numbers that the seed determines. */
class DecodeLab {
  readonly #device: Device
  readonly #shape: Shape
  readonly #arena: Arena
  readonly #random: Random
  readonly #tables: number[][]
  readonly #maxPages: number
  readonly cache: PagedCache
  readonly #slots: Tensor
  readonly #starts: Tensor
  readonly #lengths: Tensor
  readonly #positions: Tensor
  readonly pageTables: Tensor
  readonly #rows: Readonly<Record<'q' | 'k' | 'v', Tensor>>
  readonly #normed: Readonly<Record<'q' | 'k', Tensor>>
  readonly #weights: Readonly<Record<'q' | 'k', Tensor>>
  readonly #cosSin: Tensor
  readonly #options: AttentionOptions
  readonly out: Tensor

  constructor(device: Device, shape: Shape, seed: number, most = Math.max(...shape.lengths)) {
    const { dtype, kvHeads, group, keyDim, valueDim = keyDim, lengths, rotaryDim = keyDim } = shape
    this.#device = device
    this.#shape = shape
    this.#arena = new Arena(device, 1 << 20)
    this.#random = new Random(seed)
    const n = lengths.length
    const heads = kvHeads * group
    this.#maxPages = Math.ceil(most / PAGE_TOKENS)
    const order = this.#shuffled(n * this.#maxPages)
    this.#tables = lengths.map((_, s) => order.slice(s * this.#maxPages, (s + 1) * this.#maxPages))
    const pageShape = { kvHeads, keyDim, valueDim, dtype }
    this.cache = new PagedCache(this.#arena.reserve((order.length + 1) * device.pageBytes(pageShape)), pageShape, order.length + 1)
    this.#slots = this.#arena.empty([n], 'i32')
    this.#lengths = this.#arena.empty([n], 'i32')
    this.#positions = this.#arena.empty([n], 'i32')
    this.#starts = this.#ints(Array.from({ length: n + 1 }, (_, i) => i))
    this.pageTables = this.#arena.empty([n, this.#maxPages], 'i32')
    this.device.upload(this.pageTables, Int32Array.from(this.#tables.flat()))
    // One row a token, as a merged projection leaves it.
    const qkv = this.#arena.empty([n, heads * keyDim + kvHeads * (keyDim + valueDim)], dtype)
    const k = heads * keyDim
    this.#rows = {
      q: qkv.narrow(1, 0, k).view(n, heads, keyDim),
      k: qkv.narrow(1, k, kvHeads * keyDim).view(n, kvHeads, keyDim),
      v: qkv.narrow(1, k + kvHeads * keyDim, kvHeads * valueDim).view(n, kvHeads, valueDim),
    }
    this.#normed = { q: this.#arena.empty([n, heads, keyDim], dtype), k: this.#arena.empty([n, kvHeads, keyDim], dtype) }
    this.#weights = { q: this.#floats([keyDim], dtype), k: this.#floats([keyDim], dtype) }
    const angles = Array.from({ length: most * (rotaryDim / 2) }, () => this.#random.uniform() * 6)
    const table = Array.from({ length: most }, (_, i) => angles.slice((i * rotaryDim) / 2, ((i + 1) * rotaryDim) / 2))
    this.#cosSin = this.#arena.empty([most, rotaryDim], 'f32')
    device.upload(this.#cosSin, Float32Array.from(table.flatMap((row) => [...row.map(Math.cos), ...row.map(Math.sin)])))
    this.#options = {
      scale: 1 / Math.sqrt(keyDim),
      ...shape.options,
      alibiSlopes: shape.alibi ? this.#floats([heads], 'f32') : undefined,
      sinks: shape.sinks ? this.#floats([heads], 'f32') : undefined,
    }
    this.out = this.#arena.empty([n, heads * valueDim], dtype)
    this.#writePast()
    this.move(lengths)
  }

  get device(): Device {
    return this.#device
  }

  /** The step's inputs: lengths, and new rows for the last token of each. */
  move(lengths: readonly number[]): void {
    const place = (s: number, t: number): number => this.#tables[s]![Math.floor(t / PAGE_TOKENS)]! * PAGE_TOKENS + (t % PAGE_TOKENS)
    this.device.upload(this.#lengths, Int32Array.from(lengths))
    this.device.upload(
      this.#positions,
      Int32Array.from(lengths, (l) => l - 1),
    )
    this.device.upload(
      this.#slots,
      Int32Array.from(lengths, (l, s) => place(s, l - 1)),
    )
    for (const rows of Object.values(this.#rows)) this.device.upload(rows, this.#random.normals(rows.size))
    this.device.upload(this.out, new Float32Array(this.out.size).fill(Number.NaN))
  }

  /** What a layer enqueues: norms, rotation, cache write, attention. */
  readonly step = (): void => {
    const { kernels } = this.device
    const { interleaved = false, norm } = this.#shape
    const { v } = this.#rows
    let { q, k } = this.#rows
    if (norm) {
      kernels.rmsNorm(this.#normed.q, q, this.#weights.q, 1e-6, 1)
      kernels.rmsNorm(this.#normed.k, k, this.#weights.k, 1e-6, 1)
      ;({ q, k } = this.#normed)
    }
    kernels.rotary(q, k, this.#positions, this.#cosSin, { interleaved })
    kernels.writeCache(this.cache, k, v, this.#slots)
    this.#attend(q)
  }
  /** The same in one kernel, or in two, as the fusion pass would call them. */
  fused(context: number, settled: boolean): void {
    const { q, k, v } = this.#rows
    fusedAttention(native!, context, settled, this.out, q, k, v, this.cache, this.#batch, this.#options, this.#rotary)
  }
  isFusable(context: number): boolean {
    const { q, k, v } = this.#rows
    return fusedAttentionFits(native!, context, this.out, q, k, v, this.cache, this.#batch, this.#options, this.#rotary)
  }
  halfFused(context: number): void {
    const { q, k, v } = this.#rows
    fusedRotaryWrite(native!, context, q, k, v, this.cache, this.#slots, this.#rotary)
    this.#attend(q)
  }
  /** What only the step needed is gone, so that its ops may be fused. */
  readonly forget = (): void => {
    for (const t of [this.#rows.q, this.#rows.k, this.#normed.q, this.#normed.k]) this.device.kernels.fill(t, 0)
  }
  /** Attention alone, over what is in the cache by now. */
  readonly attend = (): void => this.#attend(this.#rows.q)

  result(): Float32Array {
    return this.device.download(this.out) as Float32Array
  }
  release(): void {
    this.#arena.release()
  }

  get #batch(): AttentionBatch {
    return {
      ...{ slots: this.#slots, queryStarts: this.#starts, contextLengths: this.#lengths, pageTables: this.pageTables },
      ...{ maxQueryLength: 1, maxContextLength: this.#maxPages * PAGE_TOKENS },
    }
  }
  get #rotary(): RotaryExtras {
    const { interleaved = false, norm } = this.#shape
    const { q, k } = this.#weights
    const norms = norm ? { q, k, eps: 1e-6, weightOffset: 1 } : undefined
    return { positions: this.#positions, cosSin: this.#cosSin, options: { interleaved }, norms }
  }
  #attend(q: Tensor): void {
    this.device.kernels.pagedAttention(this.out, q, this.cache, this.#batch, this.#options)
  }
  #writePast(): void {
    const { kvHeads, keyDim, valueDim } = this.cache.shape
    const slots = this.#shape.lengths.flatMap((l, s) =>
      Array.from({ length: l - 1 }, (_, t) => this.#tables[s]![Math.floor(t / PAGE_TOKENS)]! * PAGE_TOKENS + (t % PAGE_TOKENS)),
    )
    if (slots.length === 0) return
    const k = this.#floats([slots.length, kvHeads, keyDim], this.#shape.dtype)
    const v = this.#floats([slots.length, kvHeads, valueDim], this.#shape.dtype)
    this.device.kernels.writeCache(this.cache, k, v, this.#ints(slots))
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
    this.device.upload(t, Int32Array.from(values))
    return t
  }
  #floats(shape: readonly number[], dtype: FloatDType): Tensor {
    const t = this.#arena.empty(shape, dtype)
    this.device.upload(t, this.#random.normals(t.size))
    return t
  }
}

/** ‖a − b‖ / ‖b‖; infinite where a number is missing. */
function error(a: Float32Array, b: Float32Array): number {
  let difference = 0
  let size = 0
  b.forEach((x, i) => {
    const d = a[i]! - x
    difference += Number.isNaN(d) ? Number.POSITIVE_INFINITY : d * d
    size += x * x
  })
  return Math.sqrt(difference / size)
}
/** Queries, keys and results are rounded to the type once each, probabilities too. */
const ALLOWED: Readonly<Record<FloatDType, number>> = { f32: 2e-6, f16: 2e-3, bf16: 1.5e-2 }

const LENGTHS = [1, 2, 16, 17, 40, 255, 700]
const SHAPES: readonly Shape[] = [
  { dtype: 'bf16', kvHeads: 2, group: 4, keyDim: 128, lengths: LENGTHS },
  { dtype: 'f16', kvHeads: 2, group: 4, keyDim: 64, lengths: LENGTHS, interleaved: true },
  { dtype: 'bf16', kvHeads: 1, group: 4, keyDim: 128, lengths: [3000], norm: true },
  { dtype: 'bf16', kvHeads: 2, group: 2, keyDim: 128, lengths: LENGTHS, norm: true },
  { dtype: 'bf16', kvHeads: 3, group: 1, keyDim: 96, lengths: LENGTHS, rotaryDim: 32 },
  { dtype: 'f16', kvHeads: 1, group: 12, keyDim: 128, lengths: LENGTHS, norm: true },
  { dtype: 'bf16', kvHeads: 1, group: 20, keyDim: 64, lengths: [1, 33, 500] },
  { dtype: 'bf16', kvHeads: 1, group: 8, keyDim: 256, lengths: [5, 130, 900], norm: true },
  { dtype: 'f16', kvHeads: 2, group: 2, keyDim: 192, valueDim: 128, lengths: [20, 300] },
  { dtype: 'bf16', kvHeads: 2, group: 3, keyDim: 80, lengths: LENGTHS, options: { window: 100 } },
  { dtype: 'bf16', kvHeads: 2, group: 4, keyDim: 32, lengths: LENGTHS, options: { softCap: 2 }, sinks: true },
  { dtype: 'f16', kvHeads: 2, group: 7, keyDim: 64, lengths: LENGTHS, alibi: true },
  { dtype: 'bf16', kvHeads: 2, group: 4, keyDim: 64, lengths: LENGTHS, options: { window: 17 }, sinks: true },
  { dtype: 'bf16', kvHeads: 2, group: 2, keyDim: 48, valueDim: 17, lengths: LENGTHS },
  { dtype: 'f32', kvHeads: 2, group: 4, keyDim: 64, lengths: LENGTHS, sinks: true },
]
describeOnCuda('attention of one token a sequence', () => {
  let device: CudaDevice
  let context = 0
  const reference = createReferenceDevice()
  beforeAll(() => {
    context = native!.createContext(0)
    device = new CudaDevice(native!, context, 0, 'test')
  })
  afterAll(() => device.close())

  it('agrees with the reference, op by op and fused', () => {
    const failures: string[] = []
    SHAPES.forEach((shape, seed) => {
      const allowed = ALLOWED[shape.dtype]
      const theirs = new DecodeLab(reference, shape, seed)
      theirs.step()
      const expected = theirs.result().slice()
      theirs.move(shape.lengths)
      theirs.attend()
      const ways: Record<string, (lab: DecodeLab) => void> = { 'op by op': (lab) => lab.step(), 'in two': (lab) => lab.halfFused(context) }
      // f32 has no tensor cores here, and results are stored by fours.
      const fusable = shape.dtype !== 'f32' && (shape.valueDim ?? shape.keyDim) % 4 === 0
      const asked = new DecodeLab(device, shape, seed)
      expect(asked.isFusable(context), JSON.stringify(shape)).toBe(fusable)
      asked.release()
      if (fusable) {
        ways['in one'] = (lab) => lab.fused(context, false)
        ways['in one, settled'] = (lab) => lab.fused(context, true)
      }
      for (const [name, run] of Object.entries(ways)) {
        const ours = new DecodeLab(device, shape, seed)
        run(ours)
        const wrong = error(ours.result(), expected)
        if (!(wrong < allowed)) failures.push(`${JSON.stringify(shape)} ${name}: ${wrong}`)
        // The keys and values that were written, seen by other queries.
        ours.move(shape.lengths)
        ours.attend()
        const later = error(ours.result(), theirs.result())
        if (!(later < allowed)) failures.push(`${JSON.stringify(shape)} ${name}, what it wrote: ${later}`)
        ours.release()
      }
      theirs.release()
    })
    expect(failures).toEqual([])
  })

  it('is captured once and replayed while contexts grow', () => {
    const shape: Shape = { dtype: 'bf16', kvHeads: 2, group: 4, keyDim: 64, lengths: [1, 30, 250], norm: true }
    const [ours, theirs] = [device, reference].map((d) => new DecodeLab(d, shape, 99, 4000)) as [DecodeLab, DecodeLab]
    const graph = device.capture(() => {
      ours.step()
      ours.forget()
    })
    const failures: string[] = []
    for (let i = 0; i < 40; i++) {
      const lengths = shape.lengths.map((l) => l + i)
      for (const lab of [ours, theirs]) lab.move(lengths)
      graph.replay()
      theirs.step()
      const wrong = error(ours.result(), theirs.result())
      if (!(wrong < ALLOWED.bf16)) failures.push(`step ${i}: ${wrong}`)
    }
    graph.release()
    for (const lab of [ours, theirs]) lab.release()
    expect(failures).toEqual([])
  })

  it('repeats itself bit by bit', () => {
    const lengths = Array.from({ length: 64 }, (_, i) => 1 + ((i * 97) % 600))
    for (const count of [1, 3, 64]) {
      const shape: Shape = { dtype: 'bf16', kvHeads: 8, group: 4, keyDim: 128, lengths: lengths.slice(-count) }
      const lab = new DecodeLab(device, shape, 5, 2048)
      lab.step()
      lab.attend()
      const first = Buffer.from(lab.result().slice().buffer)
      for (let i = 0; i < 30; i++) {
        lab.attend()
        expect(Buffer.from(lab.result().buffer).equals(first)).toBe(true)
      }
      lab.release()
    }
  })

  it('reads nothing outside the cache when the tables are wrong', () => {
    const shape: Shape = { dtype: 'bf16', kvHeads: 2, group: 4, keyDim: 128, lengths: [100, 100] }
    const lab = new DecodeLab(device, shape, 7)
    lab.step()
    lab.attend()
    const before = lab.result().slice()
    const half = before.length / 2
    const tables = device.download(lab.pageTables) as Int32Array
    const columns = tables.length / 2
    for (const wrong of [-1, -(2 ** 31), 2 ** 31 - 1, lab.cache.pages]) {
      device.upload(
        lab.pageTables,
        Int32Array.from(tables, (page, i) => (i < columns ? page : wrong)),
      )
      lab.attend()
      const after = lab.result()
      expect(after.slice(0, half)).toEqual(before.slice(0, half))
      expect(after.slice(half)).toEqual(new Float32Array(half))
    }
    lab.release()
  })
})
