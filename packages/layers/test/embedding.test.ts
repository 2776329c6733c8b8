import { lockstep, Random } from '@aphrodite/testing'
import { describe, expect, test } from 'vitest'
import { ParallelLMHead, VocabParallelEmbedding } from '../src/embedding.ts'
import type { Step } from '../src/step.ts'
import { type Bench, Block, bench, checkpoint, materialize, read, times, valuesOf, worst } from './harness.ts'

const DIM = 6
const step = (b: Bench, rows: readonly number[]): Step => ({ logitRows: b.ints(rows) }) as Partial<Step> as Step

/** 10 tokens over 4 ranks are 3, 3, 3 and 1; 5 tokens are 2, 2, 1 and none. */
describe.each([
  [10, 1],
  [10, 2],
  [10, 4],
  [5, 4],
])('a vocabulary of %i on %i ranks', (vocab, size) => {
  const weights = checkpoint({ 'embed_tokens.weight': [vocab, DIM], 'lm_head.weight': [vocab, DIM], 'lm_head.bias': [vocab] })
  const table = valuesOf(weights, 'embed_tokens.weight')
  const head = valuesOf(weights, 'lm_head.weight')
  const ids = [0, vocab - 1, 2, 3, 0]

  test('looks up every token', () => {
    for (const scale of [1, 2.5]) {
      const outs = lockstep(size, (tp) => {
        const b = bench(tp)
        const m = Block.of({ embedTokens: new VocabParallelEmbedding(vocab, DIM, { scale }) })
        materialize(m, b.env).fill(weights.filter((w) => w.name.startsWith('embed')))
        return read(m.embedTokens.forward(b.ints(ids)))
      })
      const expected = ids.flatMap((id) => [...table.subarray(id * DIM, id * DIM + DIM)].map((v) => Math.fround(v * scale)))
      for (const out of outs) expect(out).toEqual(expected)
    }
  })

  test.each([
    ['its own table and a bias', false],
    ['the table of the embedding', true],
  ])('gives f32 logits of the rows asked for, by %s', (_, tied) => {
    const hidden = new Random(3).normals(4 * DIM)
    const outs = lockstep(size, (tp) => {
      const b = bench(tp, 'f32')
      const embedTokens = new VocabParallelEmbedding(vocab, DIM)
      const m = Block.of({ embedTokens, lmHead: new ParallelLMHead(vocab, DIM, tied ? { tiedTo: embedTokens } : { bias: true }) })
      materialize(m, b.env).fill(tied ? weights.filter((w) => w.name !== 'lm_head.bias') : weights)
      const logits = m.lmHead.logits(b.floats(hidden, [4, DIM]), step(b, [3, 1]))
      expect([logits.dtype, logits.shape]).toEqual(['f32', [2, vocab]])
      return read(logits)
    })
    const rows = Float32Array.from([...hidden.subarray(3 * DIM, 4 * DIM), ...hidden.subarray(DIM, 2 * DIM)])
    const expected = times(rows, tied ? table : head, DIM, tied ? undefined : valuesOf(weights, 'lm_head.bias'))
    for (const out of outs) expect(worst(out, expected)).toBeLessThan(1e-5)
  })
})

test('logits of a bf16 model are f32 and not rounded to bf16', () => {
  const weights = checkpoint({ 'lm_head.weight': [7, DIM] })
  const b = bench(undefined, 'bf16')
  const m = Block.of({ lmHead: new ParallelLMHead(7, DIM) })
  materialize(m, b.env).fill(weights)
  const logits = m.lmHead.logits(b.floats(new Random(5).normals(DIM), [1, DIM]), step(b, [0]))
  expect(logits.dtype).toBe('f32')
  expect(read(logits).some((v) => new Uint32Array(Float32Array.of(v).buffer)[0]! & 0xffff)).toBe(true)
})

test('an embedding scale is rounded to the dtype before it multiplies', () => {
  const weights = checkpoint({ 'embed_tokens.weight': [4, DIM] })
  const b = bench(undefined, 'bf16')
  const m = Block.of({ embedTokens: new VocabParallelEmbedding(4, DIM, { scale: Math.sqrt(3072) }) })
  materialize(m, b.env).fill(weights)
  const plain = Block.of({ embedTokens: new VocabParallelEmbedding(4, DIM) })
  materialize(plain, b.env).fill(weights)
  const t = b.floats(
    Float32Array.from(read(plain.embedTokens.forward(b.ints([2]))), (v) => v * 55.5),
    [1, DIM],
  )
  expect(read(m.embedTokens.forward(b.ints([2])))).toEqual(read(t)) // √3072 = 55.426, in bfloat16 55.5
  const exact = Float32Array.from(read(plain.embedTokens.forward(b.ints([2]))), (v) => v * 55.5)
  expect(read(m.embedTokens.forward(b.ints([2]), 'f32'))).toEqual([...exact])
})

test('a head cannot be tied to an embedding of another size', () => {
  expect(() => new ParallelLMHead(8, DIM, { tiedTo: new VocabParallelEmbedding(9, DIM) })).toThrow(/\[8, 6\].*\[9, 6\]/)
})
