import { type NativeOps, nativeKernels, PagedCache, type Tensor } from '@aphrodite/tensor'
import { beforeEach, describe, expect, test } from 'vitest'
import { type NativeCapture, StepCapture } from '../src/capture.ts'
import { Bench } from './bench.ts'

const CONTEXT = 7
let b: Bench
let log: { name: string; numbers: number[] }[]
let native: NativeOps & NativeCapture
let steps: StepCapture
beforeEach(() => {
  b = new Bench()
  log = []
  // An addon that does nothing but remember what crossed: numbers and nothing else.
  native = new Proxy({} as NativeOps & NativeCapture, {
    get:
      (_, name: string) =>
      (...numbers: number[]) => {
        expect(numbers.every((n) => typeof n === 'number')).toBe(true)
        expect(numbers[0]).toBe(CONTEXT)
        log.push({ name, numbers: numbers.slice(1) })
        return name.endsWith('Fits') ? true : 42
      },
  })
  steps = new StepCapture(native, CONTEXT, nativeKernels(native, CONTEXT), b.device)
})
const names = () => log.map((l) => l.name).filter((name) => !name.endsWith('Fits'))

describe('a captured step', () => {
  let x: Tensor
  let y: Tensor
  beforeEach(() => {
    ;[x, y] = [b.temporary(1, 8), b.temporary(1, 8)]
  })

  test('is launched fused, between begin and end, and then replayed', () => {
    const w = b.weight(8, 8)
    const z = b.temporary(1, 8)
    steps.kernels.fill(x, 1)
    expect(names()).toEqual(['fill'])
    const graph = steps.capture(() => {
      steps.kernels.linear(y, x, w)
      steps.kernels.add(z, z, y)
      expect(names()).toEqual(['fill'])
      y.block.live = false
    })
    expect(names()).toEqual(['fill', 'beginCapture', 'fusedLinear', 'endCapture'])
    expect(log.at(-1)!.numbers).toEqual([1])
    graph.replay()
    graph.release()
    expect(log.slice(-2)).toEqual([
      { name: 'replay', numbers: [42] },
      { name: 'releaseGraph', numbers: [42] },
    ])
  })

  test('is thrown away when its own code fails, or a kernel does; the device goes on', () => {
    expect(() =>
      steps.capture(() => {
        throw new Error('mine')
      }),
    ).toThrow('mine')
    expect(names()).toEqual([])
    expect(() => steps.capture(() => steps.kernels.add(x, x, b.temporary(1, 4)))).toThrow(/add: the tensors are \[1,8\] and \[1,4\]/)
    expect(names()).toEqual(['beginCapture', 'endCapture'])
    expect(log.at(-1)!.numbers).toEqual([0])
    steps.kernels.fill(x, 0)
    expect(names().at(-1)).toBe('fill')
  })

  test('moves nothing to or from the host, and holds no other', () => {
    expect(() => steps.capture(() => steps.requireIdle('upload'))).toThrow(expect.objectContaining({ code: 'CAPTURING' }))
    expect(() => steps.capture(() => steps.capture(() => {}))).toThrow(expect.objectContaining({ code: 'CAPTURING' }))
    steps.requireIdle('upload')
  })

  test('holds what ranks exchange, in its place', () => {
    const allReduce = { name: 'allReduce', reads: [x], writes: [x], launch: () => log.push({ name: 'allReduce', numbers: [] }) }
    steps.collective(allReduce)
    steps.capture(() => {
      steps.kernels.fill(x, 1)
      steps.collective(allReduce)
      steps.kernels.scale(x, x, 2)
    })
    expect(names()).toEqual(['allReduce', 'beginCapture', 'fill', 'allReduce', 'scale', 'endCapture'])
  })
})

describe('attention in a captured step', () => {
  /** The last number that crosses: whether its tables hold still from the first kernel on. */
  const settled = (before: (positions: Tensor, norm: Tensor) => void): number => {
    const [q, k, out] = [b.temporary(1, 4, 8), b.temporary(1, 2, 8), b.temporary(1, 32)]
    const ints = (...shape: number[]) => b.arena.empty(shape, 'i32')
    const shape = { kvHeads: 2, keyDim: 8, valueDim: 8, dtype: 'f32' as const }
    const cache = new PagedCache(b.arena.reserve(b.device.pageBytes(shape)), shape, 1)
    const positions = ints(1)
    const norm = b.vector(8)
    const batch = {
      slots: ints(1),
      queryStarts: ints(2),
      contextLengths: ints(1),
      pageTables: ints(1, 1),
      maxQueryLength: 1,
      maxContextLength: 16,
    }
    steps.capture(() => {
      before(positions, norm)
      steps.kernels.rmsNorm(q, q, norm, 1e-6, 0)
      steps.kernels.rmsNorm(k, k, norm, 1e-6, 0)
      steps.kernels.rotary(q, k, positions, b.arena.empty([16, 8], 'f32'), {})
      steps.kernels.writeCache(cache, k, k, batch.slots)
      steps.kernels.pagedAttention(out, q, cache, batch, { scale: 1 })
      q.block.live = k.block.live = false
    })
    return log.find((l) => l.name === 'fusedAttention')!.numbers.at(-1)!
  }
  test('may look at its tables early where nothing writes them', () => {
    expect(settled(() => {})).toBe(1)
    expect(settled(() => steps.kernels.fill(b.temporary(1, 8), 1))).toBe(1)
  })
  test('waits where something does', () => {
    expect(settled((positions) => steps.kernels.copy(positions, b.arena.empty([1], 'i32')))).toBe(0)
    log = []
    expect(settled((_, norm) => steps.kernels.fill(norm, 1))).toBe(0)
  })
})
