import { ModelRegistry } from '@aphrodite/models'
import type { Graph } from '@aphrodite/tensor'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { createCudaDevice } from '../src/device.ts'
import { fuse } from '../src/fusion.ts'
import { stretchesOf } from '../src/interpreter.ts'
import { loadNative } from '../src/native.ts'
import { probeCuda } from '../src/probe.ts'
import { describeOnCuda } from './on-cuda.ts'
import { OneSequence } from './one-sequence.ts'

const { devices } = probeCuda()
const usable = devices.find((d) => d.reason === undefined && d.capability === 90)
const others = devices.some((d) => d.reason === undefined) && !usable
const describeOnHopper = others ? (name: string, fn: () => void) => describe.skip(`${name} (no GPU of capability 9.0)`, fn) : describeOnCuda
const gpu = usable ? createCudaDevice({ index: usable.index }) : undefined
afterAll(() => gpu?.close())

const before = process.env['APHRODITE_INTERPRETER']
afterEach(() => {
  if (before === undefined) delete process.env['APHRODITE_INTERPRETER']
  else process.env['APHRODITE_INTERPRETER'] = before
})
/** A graph of the step with the interpreter wherever it has cases, or nowhere. */
function capture(step: OneSequence, interpreted: boolean): Graph {
  process.env['APHRODITE_INTERPRETER'] = interpreted ? '1' : '0'
  return step.capture()
}
const interpretedCalls = (step: OneSequence): number[] =>
  stretchesOf(fuse(step.calls, { fits: gpu!.fits, layout: gpu! }).entries, gpu!.interprets).map((s) => s.calls.length)

function relativeError(a: Float32Array, b: Float32Array): number {
  let difference = 0
  let norm = 0
  for (let i = 0; i < b.length; i++) {
    // What a cache's pages hold beyond the context is nobody's, and may be no number.
    if (Number.isNaN(a[i]!) && Number.isNaN(b[i]!)) continue
    difference += (a[i]! - b[i]!) ** 2
    norm += b[i]! ** 2
  }
  return Math.sqrt(difference / norm)
}
const likeliest = (logits: Float32Array): number => logits.reduce((best, v, i) => (v > logits[best]! ? i : best), 0)

const llama = { architectures: ['LlamaForCausalLM'], hidden_act: 'silu', rms_norm_eps: 1e-5, rope_theta: 500_000, vocab_size: 1000 }
const MODELS: Readonly<Record<string, object>> = {
  'a small Llama': {
    ...llama,
    hidden_size: 256,
    intermediate_size: 480,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 64,
    num_hidden_layers: 3,
  },
  'heads of their own, one group each': {
    ...llama,
    hidden_size: 384,
    intermediate_size: 1056,
    num_attention_heads: 6,
    num_key_value_heads: 6,
    head_dim: 64,
    num_hidden_layers: 2,
  },
  'eight queries a key': {
    ...llama,
    hidden_size: 1024,
    intermediate_size: 2816,
    num_attention_heads: 8,
    num_key_value_heads: 1,
    head_dim: 128,
    num_hidden_layers: 2,
  },
  'a small Qwen 3': {
    ...llama,
    architectures: ['Qwen3ForCausalLM'],
    hidden_size: 128,
    intermediate_size: 320,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 128,
    num_hidden_layers: 4,
  },
  'a Qwen 2, with biases': {
    ...llama,
    architectures: ['Qwen2ForCausalLM'],
    hidden_size: 896,
    intermediate_size: 4864,
    num_attention_heads: 14,
    num_key_value_heads: 2,
    num_hidden_layers: 2,
  },
  'layers of Llama 3.2 1B': {
    ...llama,
    hidden_size: 2048,
    intermediate_size: 8192,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    head_dim: 64,
    num_hidden_layers: 1,
  },
  'layers of Qwen 3 0.6B': {
    ...llama,
    architectures: ['Qwen3ForCausalLM'],
    hidden_size: 1024,
    intermediate_size: 3072,
    num_attention_heads: 16,
    num_key_value_heads: 8,
    head_dim: 128,
    num_hidden_layers: 2,
  },
  'rows of odd lengths': {
    ...llama,
    hidden_size: 1312,
    intermediate_size: 2592,
    num_attention_heads: 10,
    num_key_value_heads: 5,
    head_dim: 128,
    num_hidden_layers: 2,
  },
}
const open = (name: string) => ModelRegistry.create({ ...MODELS[name], max_position_embeddings: 2048, tie_word_embeddings: false }, name)
const CONTEXTS = [1, 16, 17, 255, 256, 1000]

describeOnHopper('a step by the interpreter', () => {
  test.each(Object.keys(MODELS))('%s: agrees with its kernels', async (name) => {
    const step = new OneSequence(gpu!, await open(name), { columns: 64 })
    const layers = (MODELS[name] as { num_hidden_layers: number }).num_hidden_layers
    expect(interpretedCalls(step)).toEqual([layers * 5 + 1])
    const [plain, interpreted] = [capture(step, false), capture(step, true)]
    for (const length of CONTEXTS) {
      step.prepare(length)
      const want = step.results(() => plain.replay())
      step.prepare(length)
      const got = step.results(() => interpreted.replay())
      expect(want.logits.every(Number.isFinite)).toBe(true)
      expect(relativeError(got.logits, want.logits)).toBeLessThanOrEqual(1.5e-2)
      const [best, other] = [likeliest(got.logits), likeliest(want.logits)]
      expect(want.logits[other]! - want.logits[best]!).toBeLessThanOrEqual(0.05)
      for (const [i, cache] of want.caches.entries()) expect(relativeError(got.caches[i]!, cache)).toBeLessThanOrEqual(1e-2)
    }
    for (const graph of [plain, interpreted]) graph.release()
    step.close()
  })

  test('repeated, and in turn with graphs of other shapes: the same bits', async () => {
    const steps = [4, 16, 64].map(
      async (columns, i) =>
        new OneSequence(gpu!, await open(i === 1 ? 'a small Qwen 3' : 'layers of Qwen 3 0.6B'), { columns, seed: i + 1 }),
    )
    const all = await Promise.all(steps)
    for (const [i, step] of all.entries()) step.prepare([50, 200, 1000][i]!)
    const graphs = all.map((step) => capture(step, true))
    const first = all.map((step, i) => step.results(() => graphs[i]!.replay()).logits)
    expect(first.every((logits) => logits.every(Number.isFinite))).toBe(true)
    for (let n = 0; n < 50; n++)
      for (const [i, step] of all.entries()) {
        for (let r = 0; r <= (n + i) % 3; r++) graphs[i]!.replay()
        if (n % 5 === 4) expect(step.logits()).toEqual(first[i])
      }
    // One goes, another comes with more words than there were: what is left is as it was.
    graphs[1]!.release()
    const large = new OneSequence(gpu!, await open('eight queries a key'), { columns: 128 })
    large.prepare(2000)
    const graph = capture(large, true)
    const logits = large.results(() => graph.replay()).logits
    for (let n = 0; n < 20; n++) {
      graphs[0]!.replay()
      graph.replay()
      graphs[2]!.replay()
    }
    expect(all[0]!.logits()).toEqual(first[0])
    expect(all[2]!.logits()).toEqual(first[2])
    expect(large.logits()).toEqual(logits)
    for (const g of [graphs[0]!, graphs[2]!, graph]) g.release()
    for (const step of [...all, large]) step.close()
  })

  test('60 times one after the other without a wait', async () => {
    const step = new OneSequence(gpu!, await open('layers of Llama 3.2 1B'), { columns: 20 })
    step.prepare(257)
    const graph = capture(step, true)
    const first = step.results(() => graph.replay())
    for (let n = 0; n < 60; n++) {
      for (let r = 0; r < 20; r++) graph.replay()
      expect(step.logits()).toEqual(first.logits)
    }
    graph.release()
    step.close()
  })

  test('two devices in one process take turns', async () => {
    const other = createCudaDevice({ index: usable!.index })
    const pair = await Promise.all(
      [gpu!, other].map(async (device) => new OneSequence(device, await open('layers of Qwen 3 0.6B'), { columns: 16 })),
    )
    for (const step of pair) step.prepare(200)
    const graphs = pair.map((step) => capture(step, true))
    const first = pair.map((step, i) => step.results(() => graphs[i]!.replay()).logits)
    expect(first[1]).toEqual(first[0])
    for (let n = 0; n < 200; n++) for (const graph of graphs) graph.replay()
    for (const [i, step] of pair.entries()) expect(step.logits()).toEqual(first[i])
    for (const graph of graphs) graph.release()
    for (const step of pair) step.close()
    other.close()
  })

  test('a page outside the cache, and no slot', async () => {
    const step = new OneSequence(gpu!, await open('a small Llama'), { columns: 16 })
    const [plain, interpreted] = [capture(step, false), capture(step, true)]
    const run = (graph: Graph) => {
      step.prepare(100, { badPage: 2, slot: -1 })
      return step.results(() => graph.replay())
    }
    const [want, got] = [run(plain), run(interpreted)]
    expect(relativeError(got.logits, want.logits)).toBeLessThanOrEqual(1.5e-2)
    for (const [i, cache] of want.caches.entries()) expect(got.caches[i]).toEqual(cache)
    for (const graph of [plain, interpreted]) graph.release()
    step.close()
  })
})

describeOnHopper('lists that hang together wrongly', () => {
  const native = usable ? loadNative() : undefined
  test('are refused', () => {
    const context = native!.createContext(usable!.index)
    const make = (...numbers: number[]) => native!.makeInterpreter(context, Float64Array.from(numbers), 0)
    expect(make()).toBe(0)
    expect(() => make(0, 1)).toThrow(/source/)
    expect(() => make(0, 0, 0, 0, 0, 0, 0, -1, 1, 3, 1, 2, 3)).toThrow(/fusedLinear: out/)
    expect(() => make(0, 0, 0, 0, 0, 0, 0, -1, 1, 30)).toThrow(/fewer numbers/)
    expect(() => native!.runInterpreter(context, 5)).toThrow(/no such list/)
    native!.destroyContext(context)
  })
})
