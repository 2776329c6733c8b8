import { readFileSync } from 'node:fs'
import { ModelRegistry } from '@aphrodite/models'
import { type Activation, type AttentionOptions, type FloatDType, type Kernels, PagedCache, type Tensor } from '@aphrodite/tensor'
import { afterAll, expect, test } from 'vitest'
import { createCudaDevice } from '../src/device.ts'
import { fuse } from '../src/fusion.ts'
import { probeCuda } from '../src/probe.ts'
import { launch, type StepOps } from '../src/step-list.ts'
import { Bench } from './bench.ts'
import { DecodeStep } from './decode-step.ts'
import { describeOnCuda } from './on-cuda.ts'

const { devices } = probeCuda()
const usable = devices.find((d) => d.reason === undefined)
const gpu = usable ? createCudaDevice({ index: usable.index }) : undefined
afterAll(() => gpu?.close())

/** ‖a − b‖ / ‖b‖. */
function relativeError(a: Float32Array, b: Float32Array): number {
  let difference = 0
  let norm = 0
  for (let i = 0; i < b.length; i++) {
    difference += (a[i]! - b[i]!) ** 2
    norm += b[i]! ** 2
  }
  return Math.sqrt(difference / norm)
}

/** What stands between a 16-bit intermediate that is rounded and one that is not: an ulp or two of bf16 in every element. */
const TOLERANCE = 1e-2

class Pair extends Bench {
  readonly #inputs: { tensor: Tensor; values: Float32Array | Int32Array }[] = []
  constructor() {
    super(gpu!, 16 << 20)
  }

  floats(shape: readonly number[], dtype: FloatDType = 'bf16', deviation = 1): Tensor {
    const tensor = this.arena.empty(shape, dtype)
    this.#inputs.push({ tensor, values: this.random.normals(tensor.size, deviation) })
    return tensor
  }
  ints(values: readonly number[], shape: readonly number[] = [values.length]): Tensor {
    const tensor = this.arena.empty(shape, 'i32')
    this.#inputs.push({ tensor, values: Int32Array.from(values) })
    return tensor
  }
  /** What is read here and nowhere afterwards. */
  passing(shape: readonly number[], dtype: FloatDType = 'bf16'): Tensor {
    const tensor = this.workspace.empty(shape, dtype)
    tensor.block.live = false
    this.#inputs.push({ tensor, values: this.random.normals(tensor.size) })
    return tensor
  }
  scratch(shape: readonly number[], dtype: FloatDType = 'bf16'): Tensor {
    const tensor = this.workspace.empty(shape, dtype)
    this.temporaries.push(tensor)
    return tensor
  }

  /** Ops one by one, then captured, from the same inputs: what they leave in `results` agrees, and the rule was applied. */
  expectAgreement(rule: string, enqueue: (k: Kernels) => void, results: readonly Tensor[], tolerance = TOLERANCE): void {
    const restore = () => {
      for (const { tensor, values } of this.#inputs) this.real.upload(tensor, values)
    }
    const read = () => results.map((t) => this.real.download(t) as Float32Array)
    for (const t of this.temporaries) t.block.live = false
    const calls = this.recorder.record(() => enqueue(this.kernels))
    expect([...fuse(calls, { fits: gpu!.fits, layout: this.real }).applied.keys()]).toContain(rule)

    restore()
    enqueue(this.real.kernels)
    const want = read()
    restore()
    for (const t of this.temporaries) this.real.kernels.fill(t, Number.NaN)
    const graph = this.real.capture!(() => enqueue(this.real.kernels))
    graph.replay()
    const got = read()
    graph.release()
    for (const [i, expected] of want.entries()) {
      expect(expected.every(Number.isFinite)).toBe(true)
      expect(relativeError(got[i]!, expected)).toBeLessThanOrEqual(tolerance)
    }
    this.workspace.release()
    this.arena.release()
  }
}

const K = 512
describeOnCuda('each rule on a GPU', () => {
  test('norm of zero plus residual', () => {
    const p = new Pair()
    const [residual, weight, x] = [p.floats([3, K], 'f32'), p.floats([K]), p.floats([3, K])]
    p.expectAgreement(
      'norm of zero plus residual',
      (k) => {
        k.fill(x, 0)
        k.addRmsNorm(x, residual, x, weight, 1e-5, 1)
      },
      [x, residual],
      0,
    )
  })

  test.each<[number, FloatDType]>([
    [1, 'f32'],
    [3, 'f32'],
    [8, 'f32'],
    [1, 'bf16'],
  ])('linear adds to the residual, then norm: %i tokens, residual %s', (tokens, type) => {
    const p = new Pair()
    const w = p.weight(K, 2 * K, 'bf16')
    const [x, residual, norm, y, out] = [
      p.floats([tokens, 2 * K]),
      p.floats([tokens, K], type),
      p.floats([K]),
      p.scratch([tokens, K]),
      p.floats([tokens, K]),
    ]
    const enqueue = (k: Kernels) => {
      k.linear(y, x, w)
      k.addRmsNorm(out, residual, y, norm, 1e-5, 0)
    }
    p.expectAgreement('linear adds to the residual, then norm', enqueue, [residual, out])
  })

  test.each<[number, number, FloatDType, FloatDType]>([
    [1, 1152, 'bf16', 'f32'],
    [5, 2304, 'bf16', 'bf16'],
    [3, 640, 'f16', 'f32'],
    [2, 12_000, 'bf16', 'f32'],
    [300, 256, 'f32', 'f32'],
  ])('norm adds to the residual, then norm: %i tokens of %i %s, residual %s', (tokens, n, type, sum) => {
    const p = new Pair()
    const [x, residual, first, second] = [
      p.passing([tokens, n], type),
      p.floats([tokens, n], sum),
      p.floats([n], type),
      p.floats([n], type),
    ]
    const out = p.floats([tokens, n], type)
    const enqueue = (k: Kernels) => {
      k.rmsNorm(x, x, first, 1e-6, 1)
      k.addRmsNorm(out, residual, x, second, 1e-5, 0)
    }
    p.expectAgreement('norm adds to the residual, then norm', enqueue, [residual, out])
    const again = new Pair()
    const [y, h, f, s] = [again.floats([tokens, n], type), again.floats([tokens, n], sum), again.floats([n], type), again.floats([n], type)]
    const inPlace = (k: Kernels) => {
      k.rmsNorm(y, y, f, 1e-6, 0)
      k.addRmsNorm(y, h, y, s, 1e-5, 0)
    }
    again.expectAgreement('norm adds to the residual, then norm', inPlace, [h, y])
  })

  test.each([1, 5])('linear adds to what is there: %i tokens', (tokens) => {
    const p = new Pair()
    const w = p.weight(K, K, 'bf16')
    const [x, h, bias, y] = [p.floats([tokens, K]), p.floats([tokens, K]), p.floats([K]), p.scratch([tokens, K])]
    const enqueue = (k: Kernels) => {
      k.linear(y, x, w, bias)
      k.add(h, y, h)
    }
    p.expectAgreement('linear adds to what is there', enqueue, [h])
  })

  test('the only row is read where it is', () => {
    const p = new Pair()
    const w = p.weight(700, K, 'bf16')
    const [x, row, logits, rows] = [p.floats([1, K]), p.scratch([1, K]), p.floats([1, 700], 'f32'), p.ints([0])]
    const enqueue = (k: Kernels) => {
      k.gatherRows(row, x, rows)
      k.linear(logits, row, w)
    }
    p.expectAgreement('the only row is read where it is', enqueue, [logits], 0)
  })

  test.each<[Activation, number]>([
    ['silu', 1],
    ['gelu', 2],
    ['geluTanh', 4],
    ['relu', 8],
    ['relu2', 5],
  ])('linear, activation and product: %s, %i tokens', (activation, tokens) => {
    const p = new Pair()
    const w = p.weight(2 * 384, K, 'bf16')
    const [x, both, out] = [p.floats([tokens, K]), p.scratch([tokens, 2 * 384]), p.floats([tokens, 384])]
    const enqueue = (k: Kernels) => {
      k.linear(both, x, w)
      k.activateAndMul(out, both, activation)
    }
    p.expectAgreement('linear, activation and product', enqueue, [out])
  })

  test.each<[number, FloatDType, number]>([
    [1, 'f32', 0],
    [2, 'f32', 1],
    [2, 'f32', 0],
    [1, 'bf16', 0],
  ])('norm inside the linears that read it: %i tokens of %s', (tokens, type, offset) => {
    const p = new Pair()
    const [w, v] = [p.weight(K, K, 'bf16'), p.weight(3 * K, K, 'bf16')]
    const [x, norm, y, bias] = [p.floats([tokens, K], type, 3), p.floats([K]), p.scratch([tokens, K]), p.floats([3 * K])]
    const [a, b] = [p.floats([tokens, K]), p.floats([tokens, 3 * K])]
    const enqueue = (k: Kernels) => {
      k.rmsNorm(y, x, norm, 1e-5, offset)
      k.linear(a, y, w)
      k.linear(b, y, v, bias)
    }
    p.expectAgreement('norm inside the linears that read it', enqueue, [a, b])
  })

  interface Attention {
    readonly dim?: number
    readonly heads?: number
    readonly kvHeads?: number
    readonly contexts?: readonly number[]
    readonly queries?: number
    readonly norms?: boolean
    readonly interleaved?: boolean
    readonly options?: Partial<AttentionOptions>
  }
  /** Pages from the last to the first, so that nothing works because tokens happen to lie in a row. */
  function attention(rule: string, shape: Attention): void {
    const { dim = 128, heads = 8, kvHeads = 2, contexts = [100], queries = 1, norms = false, interleaved = false, options = {} } = shape
    const p = new Pair()
    const columns = Math.ceil(Math.max(...contexts) / 16)
    const pages = contexts.length * columns + 1
    const pageOf = (s: number, column: number) => pages - 1 - (s * columns + column)
    const places = contexts.flatMap((length, s) => Array.from({ length: queries }, (_, i) => ({ s, at: length - queries + i })))
    const tokens = places.length
    const qkv = p.passing([tokens, (heads + 2 * kvHeads) * dim])
    const q = qkv.narrow(1, 0, heads * dim).view(-1, heads, dim)
    const k = qkv.narrow(1, heads * dim, kvHeads * dim).view(-1, kvHeads, dim)
    const v = qkv.narrow(1, (heads + kvHeads) * dim, kvHeads * dim).view(-1, kvHeads, dim)
    const cacheShape = { kvHeads, keyDim: dim, valueDim: dim, dtype: 'bf16' as const }
    const memory = p.floats([(pages * p.device.pageBytes(cacheShape)) / 2])
    const cache = new PagedCache(memory.address, cacheShape, pages)
    const batch = {
      slots: p.ints(places.map(({ s, at }) => pageOf(s, Math.floor(at / 16)) * 16 + (at % 16))),
      queryStarts: p.ints(Array.from({ length: contexts.length + 1 }, (_, s) => s * queries)),
      contextLengths: p.ints(contexts),
      pageTables: p.ints(
        contexts.flatMap((_, s) => Array.from({ length: columns }, (_, c) => pageOf(s, c))),
        [contexts.length, columns],
      ),
      maxQueryLength: queries,
      maxContextLength: columns * 16,
    }
    const positions = p.ints(places.map(({ at }) => at))
    const cosSin = p.floats([columns * 16, dim], 'f32')
    const [qNorm, kNorm] = [p.floats([dim]), p.floats([dim])]
    const out = p.floats([tokens, heads * dim])
    const enqueue = (kernels: Kernels) => {
      if (norms) {
        kernels.rmsNorm(q, q, qNorm, 1e-6, 0)
        kernels.rmsNorm(k, k, kNorm, 1e-6, 0)
      }
      kernels.rotary(q, k, positions, cosSin, { interleaved })
      kernels.writeCache(cache, k, v, batch.slots)
      kernels.pagedAttention(out, q, cache, batch, { scale: dim ** -0.5, ...options })
    }
    p.expectAgreement(rule, enqueue, [out, memory])
  }

  test.each<[string, Attention]>([
    ['one sequence', {}],
    ['one token of context', { contexts: [1] }],
    ['norms over heads', { norms: true }],
    ['heads of 64, one group each', { dim: 64, heads: 4, kvHeads: 4, contexts: [17, 300, 1] }],
    ['heads of 96', { dim: 96, contexts: [33, 48] }],
    ['heads of 256', { dim: 256, heads: 4, kvHeads: 1, norms: true }],
    ['neighbours turned', { interleaved: true }],
    ['a window', { contexts: [500, 40], options: { window: 100 } }],
    ['a cap', { options: { softCap: 5 } }],
    ['a long context', { contexts: [5000] }],
    ['a crowd', { contexts: Array.from({ length: 40 }, (_, i) => 1 + i * 13) }],
  ])('norms, rotation and cache in attention: %s', (_, shape) => attention('norms, rotation and cache in attention', shape))

  test.each<[string, Attention]>([
    ['plain', { queries: 5 }],
    ['norms', { queries: 3, norms: true, contexts: [40, 7] }],
  ])('norms, rotation and cache: %s', (_, shape) => attention('norms, rotation and cache', shape))
})

describeOnCuda('decode steps of models on a GPU', () => {
  const fixtures = new URL('../../../tests/fixtures/hf/', import.meta.url)
  test.each(
    ['llama', 'qwen2', 'qwen3', 'gemma', 'gemma2', 'gemma3', 'phi3', 'phi3-longrope', 'mistral-swa'].flatMap((name) =>
      (['bf16', 'f32'] as const).map((dtype) => [name, dtype] as const),
    ),
  )('%s in %s: captured as walked through', async (name, dtype) => {
    const config = JSON.parse(readFileSync(new URL(`${name}/config.json`, fixtures), 'utf8')) as Record<string, unknown>
    for (const contexts of [[37], [5, 50], [1, 20, 30, 40, 50]]) {
      const step = new DecodeStep(await ModelRegistry.create(config, name), { dtype, contexts, real: gpu! })
      const all = (kernels: Kernels) => {
        for (const call of step.calls) launch(kernels as StepOps, call)
      }
      const want = step.runBy(() => all(gpu!.kernels))
      const graph = gpu!.capture(() => all(gpu!.kernels))
      const got = step.runBy(() => graph.replay())
      graph.release()
      const tolerance = dtype === 'f32' ? 1e-5 : 3e-2
      expect(want.logits.every(Number.isFinite)).toBe(true)
      expect(relativeError(got.logits, want.logits)).toBeLessThanOrEqual(tolerance)
      for (const [i, cache] of want.caches.entries()) expect(relativeError(got.caches[i]!, cache)).toBeLessThanOrEqual(tolerance)
    }
  })
})
