import type { Tensor } from '@aphrodite/tensor'
import { EXACT, type OpCase, offsetsOf, rounded } from './case.ts'
import type { CaseMemory } from './memory.ts'

/** Logits as models have them: most of them far below a few. */
const logits = (memory: CaseMemory, rows: number, vocab: number, stride?: number): Tensor =>
  memory.floats([rows, vocab], 'f32', { stride, deviation: 3 })

function penalize(rows: number, vocab: number, stride?: number): OpCase {
  return {
    op: 'penalize',
    name: `penalize [${rows}, ${vocab}]${stride ? ` stride ${stride}` : ''}`,
    tolerance: rounded('f32', 4, 1e-7),
    prepare(memory, { kernels }) {
      const x = memory.output('logits', [rows, vocab], 'f32', { stride, deviation: 3 })
      const { random } = memory
      const lists = () => {
        const lengths = Array.from({ length: rows }, (_, i) => (i === 1 ? 0 : random.below(40)))
        const starts = offsetsOf(lengths)
        // Few different ids, so that they repeat; some outside the vocabulary.
        const ids = Array.from({ length: starts.at(-1)! + 1 }, () => random.below(Math.min(vocab, 20) + 2) - 1)
        return [memory.ints(starts), memory.ints(ids)] as const
      }
      const [promptOffsets, promptIds] = lists()
      const [outputOffsets, outputIds] = lists()
      const perRow = (values: readonly number[]) => memory.values(Array.from({ length: rows }, (_, i) => values[i % values.length]!))
      const penalties = { repetition: perRow([1.3, 1, 0.8]), presence: perRow([0.5, 0]), frequency: perRow([0.25, -0.3, 0, 1]) }
      return () => kernels.penalize(x, penalties, { promptOffsets, promptIds, outputOffsets, outputIds })
    },
  }
}

function addSparse(rows: number, vocab: number, stride?: number): OpCase {
  return {
    op: 'addSparse',
    name: `addSparse [${rows}, ${vocab}]${stride ? ` stride ${stride}` : ''}`,
    tolerance: rounded('f32', 2, 1e-7),
    prepare(memory, { kernels }) {
      const x = memory.output('logits', [rows, vocab], 'f32', { stride, deviation: 3 })
      const starts = offsetsOf(Array.from({ length: rows }, (_, i) => (i % 3) * 2))
      const count = Math.max(1, starts.at(-1)!)
      const ids = memory.ints(Array.from({ length: count }, () => memory.random.below(vocab)))
      const values = memory.values(
        Array.from({ length: count }, (_, i) => (i % 4 === 3 ? Number.NEGATIVE_INFINITY : memory.random.normal() * 10)),
      )
      const perRow = memory.ints(starts)
      return () => kernels.addSparse(x, perRow, ids, values)
    },
  }
}

interface Choice {
  readonly temperature: number
  readonly topK: number
  readonly topP: number
  readonly minP: number
}
const all: Choice = { temperature: 1, topK: 0, topP: 1, minP: 0 }
/** Rows take these in turn. */
const CHOICES: Readonly<Record<string, readonly Choice[]>> = {
  greedy: [{ ...all, temperature: 0 }],
  plain: [all, { ...all, temperature: 0.7 }, { ...all, temperature: 1.8 }],
  'top-k': [
    { ...all, topK: 1 },
    { ...all, topK: 5 },
    { ...all, topK: 50 },
    { ...all, topK: 700, topP: 0.97 },
    { ...all, topK: 1_000_000 },
  ],
  'top-p': [
    { ...all, topP: 0.9 },
    { ...all, topP: 0.1 },
    { ...all, topP: 0.999, temperature: 3 },
    { ...all, topP: 1e-6 },
  ],
  'min-p': [
    { ...all, minP: 0.05 },
    { ...all, minP: 0.9 },
    { ...all, minP: 1 },
  ],
  mixed: [
    { temperature: 0.8, topK: 40, topP: 0.95, minP: 0.02 },
    { ...all, temperature: 0 },
    { temperature: 1.5, topK: 0, topP: 0.5, minP: 0.1 },
    { temperature: 1, topK: 3, topP: 0.6, minP: 0 },
  ],
}

/** `special`: some rows without a likeliest token, with ties, with infinities. */
export function sample(label: string, rows: number, vocab: number, special = false): OpCase {
  const choices = CHOICES[label]!
  return {
    op: 'sample',
    name: `sample ${label} [${rows}, ${vocab}]${special ? ' with odd rows' : ''}`,
    // Random numbers, filters and ties are defined exactly; a draw could differ only where two waiting times agree to 1e-6.
    tolerance: EXACT,
    prepare(memory, { kernels }) {
      const x = logits(memory, rows, vocab)
      if (special) for (let r = 0; r < rows; r++) oddRow(x, r, vocab)
      const tokens = memory.output('tokens', [rows], 'i32')
      const of = (key: keyof Choice) => Array.from({ length: rows }, (_, i) => choices[i % choices.length]![key])
      const batch = {
        temperature: memory.values(of('temperature')),
        topK: memory.ints(of('topK')),
        topP: memory.values(of('topP')),
        minP: memory.values(of('minP')),
        seeds: memory.ints(
          Array.from({ length: rows * 3 }, (_, i) => (i % 3 === 2 ? i : memory.random.word() | 0)),
          [rows, 3],
        ),
      }
      return () => kernels.sample(tokens, x, batch)
    },
  }
}

function oddRow(x: Tensor, row: number, vocab: number): void {
  const never = Number.NEGATIVE_INFINITY
  const kinds: ((i: number) => number)[] = [
    () => never,
    () => Number.NaN,
    (i) => (i % 3 === 0 ? Number.NaN : Math.sin(i)),
    (i) => (i % 5 === 2 ? Number.POSITIVE_INFINITY : i),
    () => 1.5,
    (i) => (i === vocab - 1 ? 2 : never),
    (i) => Math.floor(Math.sin(i * 7) * 3),
    (i) => (i % 2 ? 1e38 : -1e38),
  ]
  const kind = kinds[row % kinds.length]!
  x.device.upload(
    x.narrow(0, row, 1),
    Float32Array.from({ length: vocab }, (_, i) => kind(i)),
  )
}

export function logProbs(rows: number, vocab: number, count: number, special = false): OpCase {
  return {
    op: 'logProbs',
    name: `logProbs of ${count} [${rows}, ${vocab}]${special ? ' with odd rows' : ''}`,
    // x - max - log(sum): each to a step of its own size.
    tolerance: { relative: 4e-7, ofRms: 4e-7, reason: 'a sum of f32 exponentials, whose logarithm is rounded once' },
    prepare(memory, { kernels }) {
      const x = logits(memory, rows, vocab, vocab + 3)
      if (special) for (let r = 0; r < rows; r++) oddRow(x, r, vocab)
      const values = memory.output('values', [rows, count + 1], 'f32')
      const ids = memory.output('ids', [rows, count + 1], 'i32')
      const ranks = memory.output('ranks', [rows], 'i32')
      const chosen = memory.ints(Array.from({ length: rows }, (_, i) => (i === 5 ? -1 : memory.random.below(vocab))))
      return () => kernels.logProbs(values, ids, ranks, x, chosen)
    },
  }
}

const SIZES: readonly [number, number][] = [
  [1, 1],
  [3, 7],
  [4, 33],
  [7, 100],
  [5, 129],
  [8, 1000],
  [4, 20_011],
]

export const SAMPLING_CASES: readonly OpCase[] = [
  penalize(1, 1),
  penalize(3, 17),
  penalize(7, 129, 140),
  penalize(4, 5000),
  addSparse(1, 1),
  addSparse(3, 17),
  addSparse(7, 129, 140),
  ...SIZES.flatMap(([rows, vocab]) => Object.keys(CHOICES).map((label) => sample(label, rows, vocab))),
  ...Object.keys(CHOICES).map((label) => sample(label, 8 * CHOICES[label]!.length, 100, true)),
  ...SIZES.flatMap(([rows, vocab]) => [0, 1, 5, 20].filter((n) => n <= vocab).map((n) => logProbs(rows, vocab, n))),
  logProbs(8, 100, 20, true),
  logProbs(8, 129, 129, true),
]
