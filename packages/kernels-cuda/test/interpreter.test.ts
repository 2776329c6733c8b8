import { readdirSync, readFileSync } from 'node:fs'
import { ModelRegistry } from '@aphrodite/models'
import { PagedCache, type Tensor } from '@aphrodite/tensor'
import { Random } from '@aphrodite/testing'
import { afterEach, describe, expect, test } from 'vitest'
import { fuse } from '../src/fusion.ts'
import type { Entry } from '../src/fusion-list.ts'
import { isWanted, stretchesOf } from '../src/interpreter.ts'
import type { Call } from '../src/step-list.ts'
import { Bench } from './bench.ts'
import { DecodeStep, type DecodeStepOptions } from './decode-step.ts'
import { emulated, everythingFits } from './emulated.ts'
import { EmulatedInterpreter } from './emulated-interpreter.ts'
import { overtaken } from './interpreter-blocks.ts'

const root = new URL('../../../tests/fixtures/', import.meta.url)
const FIXTURES = ['hf', 'variants'].flatMap((group) =>
  readdirSync(new URL(group, root), { withFileTypes: true }).flatMap((e) => (e.isDirectory() ? [`${group}/${e.name}`] : [])),
)
const open = (name: string) =>
  ModelRegistry.create(JSON.parse(readFileSync(new URL(`${name}/config.json`, root), 'utf8')) as Record<string, unknown>, name)
const entriesOf = (step: DecodeStep): readonly Entry[] => fuse(step.calls, { fits: everythingFits, layout: step.device }).entries

function expectEqual(step: DecodeStep, entries: readonly Entry[], stretches = stretchesOf(entries, () => true)): void {
  const want = step.run(entries.map((e) => e.call))
  expect(stretches.map(overtaken)).toEqual(stretches.map(() => undefined))
  const interpreter = new EmulatedInterpreter(step.device, step.ops)
  const got = step.runBy(() => interpreter.run(entries, stretches))
  expect(want.logits.every(Number.isFinite)).toBe(true)
  expect(got.logits).toEqual(want.logits)
  expect(got.caches).toEqual(want.caches)
}

describe('a step of models with its stretches interpreted', () => {
  test.each(FIXTURES)('%s', async (name) => {
    const cases: DecodeStepOptions[] = [{ contexts: [37] }, { contexts: [37], dtype: 'bf16' }, { contexts: [1, 20] }]
    for (const options of cases) {
      const step = new DecodeStep(await open(name), options)
      expectEqual(step, entriesOf(step))
    }
  })

  test.each(['hf/llama', 'hf/qwen2', 'hf/qwen3', 'hf/phi3', 'hf/mistral'])('%s: one stretch, all but the embedding', async (name) => {
    const entries = entriesOf(new DecodeStep(await open(name)))
    const [stretch, ...others] = stretchesOf(entries, () => true)
    expect(others).toEqual([])
    expect([stretch!.from, stretch!.to]).toEqual([1, entries.length])
    // The logits are all that anybody reads; everything else is read by the calls themselves.
    expect(stretch!.calls.map((c) => c.stored)).toEqual(stretch!.calls.map((_, i) => i === stretch!.calls.length - 1))
    // Five buffers: one for each kind of result, two for the sums, of which one is read while the other is written.
    const buffers = stretch!.calls.map((c) => c.buffer)
    expect(buffers.slice(0, -1).every((b) => b !== undefined && b < 5)).toBe(true)
    expect(buffers.at(-1)).toBeUndefined()
    // q/k/v product, attention, sum, gate and up product, sum, then the next layer's q/k/v product
    expect(stretch!.calls.slice(0, 6).map((c) => c.sources.map((s) => s.op))).toEqual([[0], [1, 1, 1], [2, 0], [3], [4, 3], [5]])
  })

  test('what the interpreter has no case for stays between', async () => {
    const random = new Random(5)
    for (const name of ['hf/llama', 'hf/qwen3', 'hf/gemma3', 'hf/qwen2'])
      for (let i = 0; i < 8; i++) {
        const step = new DecodeStep(await open(name))
        const entries = entriesOf(step)
        const taken = new Map<unknown, boolean>()
        const fits = (call: { args: readonly unknown[] }) => {
          const key = call.args[0]
          if (!taken.has(key)) taken.set(key, random.uniform() < 0.9)
          return taken.get(key)!
        }
        expectEqual(step, entries, stretchesOf(entries, fits))
      }
  })
})

describe('random lists', () => {
  test.each(Array.from({ length: 200 }, (_, seed) => seed))('%i', (seed) => {
    const b = new Bench()
    const random = new Random(seed)
    const pick = <T>(items: readonly T[]): T => items[random.below(items.length)]!
    const weights = [b.weight(16, 16), b.weight(16, 16), b.weight(32, 16)]
    const blocks = Array.from({ length: 5 }, () => b.temporary(1, 48))
    const tensor = (columns: number): Tensor => pick(blocks).narrow(1, random.uniform() < 0.6 ? 0 : 8 * random.below(2), columns)
    const ints = (...values: number[]) => {
      const t = b.arena.empty([values.length], 'i32')
      b.real.upload(t, Int32Array.from(values))
      return t
    }
    const shape = { kvHeads: 2, keyDim: 4, valueDim: 4, dtype: 'f32' as const }
    const caches = Array.from({ length: 2 }, () => b.arena.empty([(2 * b.real.pageBytes(shape)) / 4], 'f32'))
    const batch = {
      slots: ints(20),
      queryStarts: ints(0, 1),
      contextLengths: ints(5),
      pageTables: ints(1, 0).view(1, 2),
      maxQueryLength: 1,
      maxContextLength: 32,
    }
    const positions = ints(4)
    const angles = b.arena.empty([32, 4], 'f32')
    b.real.upload(angles, b.random.normals(angles.size))
    const norm = { weight: b.vector(16), eps: 1e-3, weightOffset: 0 }
    const ops = emulated(b.device, b.real.kernels)
    let recent = tensor(16)
    const input = () => (random.uniform() < 0.7 ? recent : tensor(16))
    const linear = (out: Tensor, n: number, extras: object): Call => {
      const x = input()
      if (overlap(out, x)) return { op: 'fill', args: [out, 1] }
      recent = out.lastDim === 16 ? out : recent
      return { op: 'fusedLinear', args: [out, x, weights[n]!, { ...extras, ...(random.uniform() < 0.5 ? { norm } : {}) }] }
    }
    const overlap = (x: Tensor, y: Tensor) => x.address < y.address + 4 * y.size && y.address < x.address + 4 * x.size
    const OPS: (() => Call)[] = [
      () => linear(tensor(16), random.below(2), {}),
      () => linear(tensor(16), random.below(2), { residual: true }),
      () => linear(tensor(32), 2, {}),
      () => linear(tensor(16), 2, { activation: 'silu' }),
      () => {
        const [out, qkv] = [tensor(16), random.uniform() < 0.7 ? pick(blocks).narrow(1, 0, 32) : tensor(32)]
        if (overlap(out, qkv)) return { op: 'fill', args: [out, 0] }
        const [q, k, v] = [qkv.narrow(1, 0, 16).view(1, 4, 4), qkv.narrow(1, 16, 8).view(1, 2, 4), qkv.narrow(1, 24, 8).view(1, 2, 4)]
        recent = out
        const cache = new PagedCache(pick(caches).address, shape, 2)
        return { op: 'fusedAttention', args: [out, q, k, v, cache, batch, { scale: 1 }, { positions, cosSin: angles, options: {} }] }
      },
      () => (random.uniform() < 0.3 ? { op: 'fill', args: [tensor(16), 0.5] } : { op: 'scale', args: [recent, recent, 0.5] }),
    ]
    const calls = Array.from({ length: 30 }, () => pick(OPS)())
    for (const block of blocks) block.block.live = random.uniform() < 0.3
    const entries = fuse(calls, { fits: everythingFits, layout: b.device, rules: [] }).entries
    const stretches = stretchesOf(entries, () => true)
    expect(stretches.map(overtaken)).toEqual(stretches.map(() => undefined))

    const run = (all: () => void): Float32Array[] => {
      const values = new Random(seed + 1000)
      for (const t of [...blocks, ...caches]) b.real.upload(t, values.normals(t.size))
      all()
      return [...blocks.filter((t) => t.block.live), ...caches].map((t) => b.real.download(t) as Float32Array)
    }
    const none = new EmulatedInterpreter(b.device, ops)
    const want = run(() => none.run(entries, []))
    expect(run(() => none.run(entries, stretches))).toEqual(want)
  })
})

describe('whether it is used', () => {
  const before = process.env['APHRODITE_INTERPRETER']
  afterEach(() => {
    if (before === undefined) delete process.env['APHRODITE_INTERPRETER']
    else process.env['APHRODITE_INTERPRETER'] = before
  })
  test('is for the variable to say', () => {
    delete process.env['APHRODITE_INTERPRETER']
    expect(isWanted()).toBe(false)
    for (const [value, wanted] of [
      ['', false],
      ['0', false],
      ['1', true],
    ] as const) {
      process.env['APHRODITE_INTERPRETER'] = value
      expect(isWanted()).toBe(wanted)
    }
  })
})
