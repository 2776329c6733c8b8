import { Arena, type AttentionOptions, type FloatDType, PAGE_TOKENS, PagedCache, type Tensor } from '@aphrodite/tensor'
import type { CpuDevice } from '../src/device.ts'
import { noise, rounded } from './numbers.ts'

/** Sequences whose tokens' queries, keys and values are all known: any of them can be asked for alone, in chunks, in a crowd. */
export interface Case {
  readonly heads: number
  readonly kvHeads: number
  readonly keyDim: number
  readonly valueDim?: number
  readonly dtype: FloatDType
  readonly cacheDtype?: FloatDType
  /** Tokens of each sequence. */
  readonly lengths: readonly number[]
  readonly options?: Omit<AttentionOptions, 'scale' | 'alibiSlopes' | 'sinks'> & {
    scale?: number
    alibiSlopes?: Float32Array
    sinks?: Float32Array
  }
  readonly seed?: number
}

export interface Sequence {
  readonly q: Float32Array // [tokens, heads, keyDim]
  readonly k: Float32Array
  readonly v: Float32Array
}

export const valueDimOf = (c: Case): number => c.valueDim ?? c.keyDim
const scaleOf = (c: Case): number => c.options?.scale ?? c.keyDim ** -0.5

export const makeSequences = (c: Case): Sequence[] =>
  c.lengths.map((n, s) => {
    const seed = (c.seed ?? 1) * 100 + s
    return {
      q: rounded(
        noise(n * c.heads * c.keyDim, seed).map((x) => 3 * x),
        c.dtype,
      ),
      k: rounded(rounded(noise(n * c.kvHeads * c.keyDim, seed + 31), c.dtype), c.cacheDtype ?? c.dtype),
      v: rounded(rounded(noise(n * c.kvHeads * valueDimOf(c), seed + 57), c.dtype), c.cacheDtype ?? c.dtype),
    }
  })

/** The rows of one token in float64, straight from the definition. */
export function exact(c: Case, { q, k, v }: Sequence, position: number): Float64Array {
  const valueDim = valueDimOf(c)
  const { window = 0, softCap = 0, alibiSlopes, sinks } = c.options ?? {}
  const out = new Float64Array(c.heads * valueDim)
  for (let h = 0; h < c.heads; h++) {
    const kv = Math.floor((h * c.kvHeads) / c.heads)
    const from = window > 0 ? Math.max(0, position - window + 1) : 0
    const scores: number[] = []
    for (let t = from; t <= position; t++) {
      let s = 0
      for (let d = 0; d < c.keyDim; d++) s += q[(position * c.heads + h) * c.keyDim + d]! * k[(t * c.kvHeads + kv) * c.keyDim + d]!
      s *= scaleOf(c)
      if (softCap > 0) s = softCap * Math.tanh(s / softCap)
      if (alibiSlopes) s += alibiSlopes[h]! * (t - position)
      scores.push(s)
    }
    const most = Math.max(...scores, ...(sinks ? [sinks[h]!] : []))
    let total = sinks ? Math.exp(sinks[h]! - most) : 0
    for (const s of scores) total += Math.exp(s - most)
    scores.forEach((s, i) => {
      const weight = Math.exp(s - most) / total
      for (let d = 0; d < valueDim; d++) out[h * valueDim + d]! += weight * v[((from + i) * c.kvHeads + kv) * valueDim + d]!
    })
  }
  return out
}

/** Tokens [from, to) of sequence `sequence`, computed in one step. */
export interface Request {
  readonly sequence: number
  readonly from: number
  readonly to: number
}

/** A device with the caches of a case's sequences on it, filled as steps ask for it. */
export class Runner {
  readonly arena: Arena
  readonly cache: PagedCache
  readonly #device: CpuDevice
  readonly #case: Case
  readonly #sequences: readonly Sequence[]
  readonly #pages: number[][] = []
  readonly #columns: number
  readonly #options: AttentionOptions

  /** `stride`: page numbers are dealt out in steps of it, so that another number gives other pages. */
  constructor(device: CpuDevice, c: Case, sequences: readonly Sequence[], stride = 1) {
    this.#device = device
    this.#case = c
    this.#sequences = sequences
    this.arena = new Arena(device, 1 << 20)
    this.#columns = Math.max(...c.lengths.map((n) => Math.ceil(n / PAGE_TOKENS))) + 1
    const wanted = c.lengths.reduce((sum, n) => sum + Math.ceil(n / PAGE_TOKENS), 0)
    let count = wanted + 1
    while (gcd(count, stride) !== 1) count++
    const shape = { kvHeads: c.kvHeads, keyDim: c.keyDim, valueDim: valueDimOf(c), dtype: c.cacheDtype ?? c.dtype }
    this.cache = new PagedCache(this.arena.reserve(device.pageBytes(shape) * (count + 1)), shape, count + 1)
    let next = 0
    for (const n of c.lengths) this.#pages.push(Array.from({ length: Math.ceil(n / PAGE_TOKENS) }, () => 1 + ((stride * next++) % count)))
    const { alibiSlopes, sinks, ...rest } = c.options ?? {}
    const perHead = (x: Float32Array | undefined): Tensor | undefined => x && this.upload([c.heads], 'f32', x)
    this.#options = { scale: scaleOf(c), ...rest, alibiSlopes: perHead(alibiSlopes), sinks: perHead(sinks) }
  }

  upload(shape: number[], dtype: FloatDType | 'i32', data: Float32Array | Int32Array): Tensor {
    const t = this.arena.empty(shape, dtype)
    if (data.length > 0) this.#device.upload(t, data)
    return t
  }

  /** Writes the requests' keys and values and attends; f32 rows [tokens, heads · valueDim], or rounded to outType. */
  step(requests: readonly Request[], outType: FloatDType = 'f32'): Float32Array {
    const { heads, kvHeads, keyDim, dtype, options } = this.#case
    const valueDim = valueDimOf(this.#case)
    const tokens = requests.reduce((n, r) => n + r.to - r.from, 0)
    // As a model has them: q, k and v of a token side by side.
    const widths = [heads * keyDim, kvHeads * keyDim, kvHeads * valueDim]
    const row = widths[0]! + widths[1]! + widths[2]!
    const qkv = new Float32Array(tokens * row)
    const slots: number[] = []
    const starts = [0]
    const table = new Int32Array(requests.length * this.#columns)
    requests.forEach(({ sequence, from, to }, i) => {
      const { q, k, v } = this.#sequences[sequence]!
      const pages = this.#pages[sequence]!
      for (let t = from; t < to; t++) {
        const at = slots.length * row
        qkv.set(q.subarray(t * widths[0]!, (t + 1) * widths[0]!), at)
        qkv.set(k.subarray(t * widths[1]!, (t + 1) * widths[1]!), at + widths[0]!)
        qkv.set(v.subarray(t * widths[2]!, (t + 1) * widths[2]!), at + widths[0]! + widths[1]!)
        slots.push(pages[Math.floor(t / PAGE_TOKENS)]! * PAGE_TOKENS + (t % PAGE_TOKENS))
      }
      starts.push(slots.length)
      const seen = options?.window ? Math.max(0, from - options.window + 1) : 0
      for (let p = Math.floor(seen / PAGE_TOKENS); p * PAGE_TOKENS < to; p++) table[i * this.#columns + p] = pages[p]!
    })
    const x = this.upload([tokens, row], dtype, qkv)
    const part = (i: number, n: number): Tensor => {
      const start = widths.slice(0, i).reduce((a, b) => a + b, 0)
      return x.narrow(1, start, widths[i]!).view(-1, n, widths[i]! / n)
    }
    const slotTensor = this.upload([tokens], 'i32', Int32Array.from(slots))
    this.#device.kernels.writeCache(this.cache, part(1, kvHeads), part(2, kvHeads), slotTensor)
    const lengths = requests.map((r) => r.to)
    const out = this.arena.empty([tokens, heads * valueDim], outType)
    const batch = {
      slots: slotTensor,
      queryStarts: this.upload([starts.length], 'i32', Int32Array.from(starts)),
      contextLengths: this.upload([lengths.length], 'i32', Int32Array.from(lengths)),
      pageTables: this.upload([requests.length, this.#columns], 'i32', table),
      maxQueryLength: Math.max(...requests.map((r) => r.to - r.from)),
      maxContextLength: Math.max(...lengths),
    }
    this.#device.kernels.pagedAttention(out, part(0, heads), this.cache, batch, this.#options)
    return this.#device.download(out) as Float32Array
  }

  release(): void {
    this.arena.release()
  }
}

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b))

/** The largest error over the given rows, in units of the exact rows' root mean square. */
export function worstError(c: Case, sequences: readonly Sequence[], requests: readonly Request[], got: Float32Array, every = 1): number {
  const width = c.heads * valueDimOf(c)
  let row = 0
  let worst = 0
  let squares = 0
  let count = 0
  for (const r of requests)
    for (let t = r.from; t < r.to; t++, row++) {
      if (t % every !== 0 && t !== r.to - 1) continue
      exact(c, sequences[r.sequence]!, t).forEach((want, i) => {
        const error = Math.abs(want - got[row * width + i]!)
        if (!(error <= worst)) worst = error
        squares += want * want
        count++
      })
    }
  return worst / Math.sqrt(squares / count)
}
