import {
  type Device,
  type Graph,
  type HostArray,
  type HostData,
  type Kernels,
  type Reading,
  type Tensor,
  tensorError,
} from '@aphrodite/tensor'

/** What the engine itself calls, and `run`: what a model computes goes through it, so that it can be captured and put off. */
export type FakeKernels = Kernels & { run(op: () => void): void }

/** A device whose memory is one array buffer; a kernel is a few lines of arithmetic on it. Only what the engine itself calls. */
export class FakeDevice implements Device {
  readonly kind = 'reference'
  readonly description = 'fake'
  readonly asynchronous = false
  readonly kernels: Kernels
  /** Calls of each kernel. */
  readonly calls: Record<string, number> = {}
  readonly allocated = new Map<number, number>()
  uploads = 0
  /** Runs before each read or synchronize is done: a test may throw here. */
  onSynchronize: () => void = () => {}
  /** Absent unless asked for. */
  capture?: (enqueue: () => void) => Graph
  replays = 0
  graphs = 0
  #recording: (() => void)[] | undefined
  readonly #buffer: ArrayBuffer
  readonly #freeBytes: number
  #cursor = 4096

  constructor({ bytes = 64 << 20, freeBytes = bytes / 2, captures = false } = {}) {
    this.#buffer = new ArrayBuffer(bytes)
    this.#freeBytes = freeBytes
    if (captures) this.capture = (enqueue) => this.#capture(enqueue)
    const kernels = fakeKernels(this)
    const counted: Record<string, unknown> = {}
    for (const [name, kernel] of Object.entries(kernels) as [string, (...args: unknown[]) => void][]) {
      const op = (...args: unknown[]): void => {
        if (name !== 'run') this.calls[name] = (this.calls[name] ?? 0) + 1
        kernel(...args)
      }
      counted[name] = (...args: unknown[]) => {
        if (this.#recording) this.#recording.push(() => op(...args))
        else op(...args)
      }
    }
    this.kernels = counted as unknown as Kernels
  }

  #capture(enqueue: () => void): Graph {
    if (this.#recording) throw new Error('a graph is being captured already')
    const ops: (() => void)[] = []
    this.#recording = ops
    try {
      enqueue()
    } finally {
      this.#recording = undefined
    }
    this.graphs++
    return {
      replay: () => {
        this.replays++
        for (const op of ops) op()
      },
      release: () => {
        this.graphs--
      },
    }
  }

  supports = () => true
  allocate(bytes: number): number {
    const address = this.#cursor
    this.#cursor += Math.ceil(bytes / 256) * 256
    if (this.#cursor > this.#buffer.byteLength) throw tensorError('OUT_OF_MEMORY', `no room for ${bytes} bytes`)
    this.allocated.set(address, bytes)
    return address
  }
  release(address: number): void {
    if (!this.allocated.delete(address)) throw new Error(`released ${address} twice`)
  }
  memory = () => ({ total: this.#buffer.byteLength, free: this.#freeBytes })

  i32(t: Tensor): Int32Array {
    return new Int32Array(this.#buffer, t.address, t.size)
  }
  f32(t: Tensor): Float32Array {
    return new Float32Array(this.#buffer, t.address, t.size)
  }
  words(address: number, n: number): Int32Array {
    return new Int32Array(this.#buffer, address, n)
  }

  upload(dst: Tensor, src: HostArray | HostData): void {
    if (this.#recording) throw new Error('an upload cannot be captured')
    this.uploads++
    if (src instanceof Int32Array) this.i32(dst).set(src)
    else if (src instanceof Float32Array) this.f32(dst).set(src)
    else throw new Error('not needed')
    if (src.length !== dst.size) throw new Error(`upload of ${src.length} elements to [${dst.shape}]`)
  }
  download(src: Tensor): Float32Array | Int32Array {
    if (!src.isContiguous()) throw new Error('not needed')
    return src.dtype === 'i32' ? this.i32(src).slice() : this.f32(src).slice()
  }
  read(src: Tensor): Reading {
    if (this.#recording) throw new Error('a read cannot be captured')
    const host = this.download(src)
    return {
      wait: async () => {
        this.onSynchronize()
        return host
      },
    }
  }
  packedBytes = () => 0
  pack(): void {}
  unpack = () => new Float32Array(0)
  /** A token is one number here. */
  pageBytes = () => 64
  async synchronize(): Promise<void> {
    this.onSynchronize()
  }
  close(): void {}
}

const fakeKernels = (device: FakeDevice): Partial<FakeKernels> => ({
  run: (op) => op(),
  feedTokens(ids, lastTokens, sources) {
    const [to, from, where] = [device.i32(ids), device.i32(lastTokens), device.i32(sources)]
    if (to.length !== where.length) throw new Error('sources do not fit')
    for (let i = 0; i < to.length; i++) if (where[i] !== -1) to[i] = from[where[i]!]!
  },
  copy(out, x) {
    if (out.size !== x.size) throw new Error('sizes do not fit')
    device.i32(out).set(device.i32(x))
  },
  penalize(logits, penalties, history) {
    const [rows, vocab] = [logits.dim(0), logits.dim(1)]
    const all = device.f32(logits)
    const promptOffsets = device.i32(history.promptOffsets)
    const outputOffsets = device.i32(history.outputOffsets)
    const [promptIds, outputIds] = [device.i32(history.promptIds), device.i32(history.outputIds)]
    for (let r = 0; r < rows; r++) {
      penalizeRow(
        all.subarray(r * vocab, (r + 1) * vocab),
        promptIds.subarray(promptOffsets[r], promptOffsets[r + 1]),
        outputIds.subarray(outputOffsets[r], outputOffsets[r + 1]),
        device.f32(penalties.repetition)[r]!,
        device.f32(penalties.presence)[r]!,
        device.f32(penalties.frequency)[r]!,
      )
    }
  },
  addSparse(logits, offsets, ids, values) {
    const vocab = logits.dim(1)
    const [all, o, t, v] = [device.f32(logits), device.i32(offsets), device.i32(ids), device.f32(values)]
    if (o.length !== logits.dim(0) + 1) throw new Error('offsets do not fit')
    for (let r = 0; r < logits.dim(0); r++) for (let i = o[r]!; i < o[r + 1]!; i++) all[r * vocab + t[i]!]! += v[i]!
  },
  sample(tokens, logits, batch) {
    const [rows, vocab] = [logits.dim(0), logits.dim(1)]
    const [all, out, seeds] = [device.f32(logits), device.i32(tokens), device.i32(batch.seeds)]
    if (tokens.size !== rows || batch.topP.size !== rows || batch.seeds.size !== rows * 3) throw new Error('rows do not fit')
    for (let r = 0; r < rows; r++)
      out[r] = sampleRow(
        all.subarray(r * vocab, (r + 1) * vocab),
        device.f32(batch.temperature)[r]!,
        device.i32(batch.topK)[r]!,
        seeds.subarray(r * 3, r * 3 + 3),
      )
  },
  logProbs(values, ids, ranks, logits, chosen) {
    const [rows, vocab, width] = [logits.dim(0), logits.dim(1), values.dim(1)]
    if (ranks.size !== rows || chosen.size !== rows || values.dim(0) !== rows) throw new Error('rows do not fit')
    for (let r = 0; r < rows; r++) {
      const row = device.f32(logits).subarray(r * vocab, (r + 1) * vocab)
      const { logprobs, order } = logprobRow(row)
      const token = device.i32(chosen)[r]!
      const wanted = [token, ...order.slice(0, width - 1)]
      for (const [i, id] of wanted.entries()) {
        device.f32(values)[r * width + i] = logprobs[id]!
        device.i32(ids)[r * width + i] = id
      }
      device.i32(ranks)[r] = order.indexOf(token) + 1
    }
  },
})

export function penalizeRow(
  row: Float32Array,
  prompt: ArrayLike<number>,
  output: ArrayLike<number>,
  repetition: number,
  presence: number,
  frequency: number,
): void {
  const seen = new Set([...Array.from(prompt), ...Array.from(output)])
  for (const id of seen) row[id] = row[id]! > 0 ? row[id]! / repetition : row[id]! * repetition
  const counts = new Map<number, number>()
  for (const id of Array.from(output)) counts.set(id, (counts.get(id) ?? 0) + 1)
  for (const [id, count] of counts) row[id]! -= presence + frequency * count
}

/** Not the real distribution: a draw that depends on everything that the real one does. */
export function sampleRow(row: Float32Array, temperature: number, topK: number, seeds: ArrayLike<number>): number {
  let best = 0
  if (row.some(Number.isNaN)) return -1
  if (temperature === 0) {
    for (let v = 1; v < row.length; v++) if (row[v]! > row[best]!) best = v
    return best
  }
  const order = [...row.keys()].sort((a, b) => row[b]! - row[a]! || a - b).filter((v) => row[v] !== Number.NEGATIVE_INFINITY)
  const among = topK > 0 ? Math.min(topK, order.length) : order.length
  const draw = mix(mix(mix(seeds[0]!, seeds[1]!), seeds[2]!), Math.round(temperature * 100)) >>> 0
  return order[draw % among]!
}

export function logprobRow(row: Float32Array): { logprobs: number[]; order: number[] } {
  const sum = Math.log(row.reduce((total, x) => total + Math.exp(x), 0))
  const logprobs = Array.from(row, (x) => x - sum)
  return { logprobs, order: [...row.keys()].sort((a, b) => row[b]! - row[a]! || a - b) }
}

/** A 32-bit hash of two words. */
export function mix(a: number, b: number): number {
  let h = Math.imul(a ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(b ^ (a >>> 15), 0xc2b2ae35)
  h ^= h >>> 13
  h = Math.imul(h, 0x27d4eb2f)
  return h ^ (h >>> 16)
}
