import { createCpuDevice } from '@aphrodite/kernels-cpu'
import { Arena, type Device, type Tensor } from '@aphrodite/tensor'
import { Random } from '@aphrodite/testing'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createCudaDevice } from '../src/index.ts'
import { describeOnCuda } from './on-cuda.ts'

const VOCAB = 151_936

interface Choice {
  readonly temperature: number
  readonly topK: number
  readonly topP: number
  readonly minP: number
}
const all: Choice = { temperature: 1, topK: 0, topP: 1, minP: 0 }
const CHOICES: readonly Choice[] = [
  { ...all, temperature: 0 },
  ...[1e-30, 1e-6, 0.1, 0.7, 1, 1.8, 100, 1e30].map((temperature) => ({ ...all, temperature })),
  ...[1, 2, 5, 50, 1000, 2047, 2048, 2049, 3000, 50_000, 151_935, 151_936, 2_000_000].map((topK) => ({ ...all, topK })),
  ...[1e-6, 0.1, 0.5, 0.9, 0.95, 0.999, 0.999_999].map((topP) => ({ ...all, topP })),
  ...[1e-6, 0.01, 0.05, 0.5, 0.99, 1].map((minP) => ({ ...all, minP })),
  ...[0.3, 1, 3, 50].flatMap((temperature) => [
    { temperature, topK: 40, topP: 0.95, minP: 0.02 },
    { temperature, topK: 20_000, topP: 0.9, minP: 0 },
    { temperature, topK: 0, topP: 0.8, minP: 0.1 },
    { temperature, topK: 3000, topP: 1, minP: 1e-3 },
  ]),
]

/** Logits as they are met, and as they should not hurt: [vocab] each. */
const KINDS: Readonly<Record<string, (random: Random, n: number) => Float32Array>> = {
  'normal numbers': (random, n) => random.normals(n, 3),
  'a few far above the rest': (random, n) => {
    const x = random.normals(n, 1)
    for (let i = 0; i < 30; i++) x[random.below(n)] = 20 - i / 2
    return x
  },
  'many ties': (random, n) => random.normals(n, 2).map((v) => Math.round(v * 2) / 2),
  'all equal': (_, n) => new Float32Array(n).fill(1.5),
  'all but some banned': (random, n) => random.normals(n, 3).map((v, i) => (i % 97 === 13 ? v : Number.NEGATIVE_INFINITY)),
  'huge and not numbers': (random, n) => random.normals(n, 1e30).map((v, i) => (i % 5 === 0 ? Number.NaN : v)),
  'a narrow band far from zero': (random, n) => random.normals(n, 0.01, 1e4),
}

describeOnCuda('sampling on CUDA', () => {
  let cuda: Device
  let cpu: Device
  beforeAll(() => {
    cuda = createCudaDevice()
    cpu = createCpuDevice({ threads: 2 })
  })
  afterAll(() => {
    cuda?.close()
    cpu?.close()
  })

  /** The tokens that a device draws: a row for each choice, all of the same logits. `gap`: elements between rows. */
  function draws(device: Device, logits: Float32Array, gap: number, seed: number): number[] {
    const arena = new Arena(device, 1 << 20)
    try {
      const rows = CHOICES.length
      const put = (values: number[], dtype: 'f32' | 'i32', shape = [values.length]): Tensor => {
        const t = arena.empty(shape, dtype)
        device.upload(t, dtype === 'i32' ? Int32Array.from(values) : Float32Array.from(values))
        return t
      }
      const x = arena.empty([rows, logits.length + gap], 'f32').narrow(1, 0, logits.length)
      for (let r = 0; r < rows; r++) device.upload(x.narrow(0, r, 1), logits)
      const of = (key: keyof Choice) => CHOICES.map((c) => c[key])
      const words = new Random(seed)
      const tokens = arena.empty([rows], 'i32')
      device.kernels.sample(tokens, x, {
        temperature: put(of('temperature'), 'f32'),
        topK: put(of('topK'), 'i32'),
        topP: put(of('topP'), 'f32'),
        minP: put(of('minP'), 'f32'),
        seeds: put(
          CHOICES.flatMap((_, i) => [words.word() | 0, words.word() | 0, i]),
          'i32',
          [rows, 3],
        ),
      })
      return [...(device.download(tokens) as Int32Array)]
    } finally {
      arena.release()
    }
  }

  it.each(Object.keys(KINDS))('draws the tokens of the CPU from %s', { timeout: 60_000 }, (kind) => {
    for (const [seed, n, gap] of [
      [1, VOCAB, 0],
      [2, VOCAB, 3],
      [3, 32_001, 1],
      [4, 4096, 0],
    ] as const) {
      const logits = KINDS[kind]!(new Random(seed), n)
      const [ours, theirs] = [draws(cuda, logits, gap, seed), draws(cpu, logits, gap, seed)]
      const differing = CHOICES.flatMap((c, i) => (ours[i] === theirs[i] ? [] : [{ ...c, n, ours: ours[i], theirs: theirs[i] }]))
      expect(differing).toEqual([])
    }
  })

  it('ranks the tokens of a whole vocabulary as the CPU does', { timeout: 60_000 }, () => {
    const n = 20_011
    for (const kind of ['normal numbers', 'many ties', 'all but some banned', 'huge and not numbers']) {
      const logits = KINDS[kind]!(new Random(5), n)
      const [ours, theirs] = [cuda, cpu].map((device) => {
        const arena = new Arena(device, 1 << 20)
        const x = arena.empty([1, n], 'f32')
        device.upload(x, logits)
        const chosen = arena.empty([1], 'i32')
        device.upload(chosen, Int32Array.of(17))
        const [values, ids, ranks] = [arena.empty([1, 5001], 'f32'), arena.empty([1, 5001], 'i32'), arena.empty([1], 'i32')]
        device.kernels.logProbs(values, ids, ranks, x, chosen)
        const read = { ids: [...(device.download(ids) as Int32Array)], ranks: [...(device.download(ranks) as Int32Array)] }
        arena.release()
        return read
      })
      expect(ours).toEqual(theirs)
    }
  })

  it('adds the entries of one token in their order', () => {
    const [n, entries] = [1000, 5000]
    const sums = [cuda, cpu].map((device) => {
      const arena = new Arena(device, 1 << 20)
      const random = new Random(6)
      const x = arena.empty([2, n], 'f32')
      device.upload(x, random.normals(2 * n, 3))
      const [offsets, ids, values] = [arena.empty([3], 'i32'), arena.empty([entries], 'i32'), arena.empty([entries], 'f32')]
      device.upload(offsets, Int32Array.of(0, 10, entries))
      device.upload(
        ids,
        Int32Array.from({ length: entries }, () => random.below(n + 2) - 1),
      )
      device.upload(values, random.normals(entries, 100))
      device.kernels.addSparse(x, offsets, ids, values)
      const found = [...(device.download(x) as Float32Array)]
      arena.release()
      return found
    })
    expect(sums[0]).toEqual(sums[1])
  })
})
