import { type PackedWeight, Tensor } from '@aphrodite/tensor'
import { Random } from '@aphrodite/testing'
import { beforeEach, describe, expect, test } from 'vitest'
import type { FusedFits } from '../src/fused-kernels.ts'
import { fuse } from '../src/fusion.ts'
import { type Call, type Collective, launch } from '../src/step-list.ts'
import { Bench } from './bench.ts'
import { emulated, everythingFits } from './emulated.ts'

let b: Bench
let w: PackedWeight
let norm: Tensor
let residual: Tensor
let x: Tensor
let y: Tensor
let z: Tensor
beforeEach(() => {
  b = new Bench()
  w = b.weight(8, 8)
  norm = b.vector(8)
  residual = b.arena.empty([2, 8], 'f32')
  ;[x, y, z] = [b.temporary(2, 8), b.temporary(2, 8), b.temporary(2, 8)]
})

describe('linear, then addRmsNorm', () => {
  const pair =
    (between: () => void = () => {}, after: () => void = () => {}) =>
    () => {
      b.kernels.linear(y, x, w)
      between()
      b.kernels.addRmsNorm(z, residual, y, norm, 1e-5, 0)
      after()
    }
  test('is fused', () => {
    expect(b.fuse(pair(), { keep: [z] })).toEqual(['fusedLinear', 'rmsNorm'])
  })
  test('in place too', () => {
    const inPlace = () => {
      b.kernels.linear(y, x, w)
      b.kernels.addRmsNorm(y, residual, y, norm, 1e-5, 0)
    }
    expect(b.fuse(inPlace, { keep: [y] })).toEqual(['fusedLinear', 'rmsNorm'])
  })
  test('not where the device has no kernel for it', () => {
    expect(b.fuse(pair(), { keep: [z], fits: { ...everythingFits, linear: () => false } })).toEqual(['linear', 'addRmsNorm'])
  })
  test('not where another op reads the product: before, after, or a part of it', () => {
    const other = b.temporary(2, 8)
    const unfused = (ops: string[]) => expect(ops.filter((op) => op.startsWith('fused'))).toEqual([])
    unfused(
      b.fuse(
        pair(() => b.kernels.copy(other, y)),
        { keep: [z] },
      ),
    )
    unfused(
      b.fuse(
        pair(undefined, () => b.kernels.copy(other, y)),
        { keep: [z] },
      ),
    )
    unfused(
      b.fuse(
        pair(undefined, () => b.kernels.copy(other.narrow(1, 0, 1), y.narrow(1, 7, 1))),
        { keep: [z] },
      ),
    )
  })
  test('where the product is written again before it is read', () => {
    const after = () => {
      b.kernels.fill(y, 1)
      b.kernels.copy(x, y)
    }
    expect(b.fuse(pair(undefined, after), { keep: [z] })).toEqual(['fusedLinear', 'rmsNorm', 'fill', 'copy'])
    const half = () => {
      b.kernels.fill(y.narrow(1, 0, 4), 1)
      b.kernels.copy(x, y)
    }
    expect(b.fuse(pair(undefined, half), { keep: [z] })).toEqual(['linear', 'addRmsNorm', 'fill', 'copy'])
  })
  test('not where the product is still live at the end', () => {
    expect(b.fuse(pair(), { keep: [y, z] })).toEqual(['linear', 'addRmsNorm'])
    // … unless it is overwritten in the step.
    expect(
      b.fuse(
        pair(undefined, () => b.kernels.fill(y, 0)),
        { keep: [y, z] },
      ),
    ).toEqual(['fusedLinear', 'rmsNorm', 'fill'])
  })
  test('not where the input changes in between', () => {
    expect(
      b.fuse(
        pair(() => b.kernels.fill(x, 0)),
        { keep: [z] },
      ),
    ).toEqual(['linear', 'fill', 'addRmsNorm'])
    expect(
      b.fuse(
        pair(() => b.kernels.fill(x.narrow(0, 1, 1), 0)),
        { keep: [z] },
      ),
    ).toEqual(['linear', 'fill', 'addRmsNorm'])
  })
  test('not where the product changes in between', () => {
    expect(
      b.fuse(
        pair(() => b.kernels.scale(y, y, 2)),
        { keep: [z] },
      ),
    ).toEqual(['linear', 'scale', 'addRmsNorm'])
    expect(
      b.fuse(
        pair(() => b.kernels.fill(y.narrow(1, 3, 1), 0)),
        { keep: [z] },
      ),
    ).toEqual(['linear', 'fill', 'addRmsNorm'])
  })
  test('not where the views differ: other columns, other strides, another dtype', () => {
    const wide = b.temporary(2, 16)
    const shifted = () => {
      b.kernels.linear(wide.narrow(1, 0, 8), x, w)
      b.kernels.addRmsNorm(z, residual, wide.narrow(1, 4, 8), norm, 1e-5, 0)
    }
    expect(b.fuse(shifted, { keep: [z] })).toEqual(['linear', 'addRmsNorm'])
    const strided = () => {
      b.kernels.linear(wide.narrow(1, 0, 8), x, w)
      b.kernels.addRmsNorm(z, residual, wide.narrow(1, 0, 8), norm, 1e-5, 0)
    }
    expect(b.fuse(strided, { keep: [z] })).toEqual(['fusedLinear', 'rmsNorm'])
  })
  test('not where the linear reads the residual itself', () => {
    const own = () => {
      b.kernels.linear(y, residual, w)
      b.kernels.addRmsNorm(z, residual, y, norm, 1e-5, 0)
    }
    expect(b.fuse(own, { keep: [z] })).toEqual(['linear', 'addRmsNorm'])
  })
  test('not across what ranks exchange', () => {
    const collective: Collective = { name: 'allReduce', reads: [z], writes: [z], launch: () => {} }
    expect(
      b.fuse(
        pair(() => b.recorder.collective(collective)),
        { keep: [z] },
      ),
    ).toEqual(['linear', 'collective', 'addRmsNorm'])
    const onProduct: Collective = { name: 'allReduce', reads: [y], writes: [y], launch: () => {} }
    expect(
      b.fuse(
        pair(() => b.recorder.collective(onProduct)),
        { keep: [z] },
      ),
    ).toEqual(['linear', 'collective', 'addRmsNorm'])
  })
})

test('the list of a rank: nothing crosses an exchange, the rest is fused as without ranks', () => {
  const sum = (t: Tensor): Collective => ({ name: 'allReduce', reads: [t], writes: [t], launch: () => {} })
  const out = b.temporary(2, 8)
  const step = () => {
    b.kernels.rmsNorm(y, x, norm, 1e-5, 0)
    b.kernels.linear(z, y, w) // column-parallel
    b.kernels.linear(y, z, w) // row-parallel
    b.recorder.collective(sum(y))
    b.kernels.addRmsNorm(z, residual, y, norm, 1e-5, 0)
    b.kernels.linear(out, z, w)
    b.recorder.collective(sum(out))
    b.kernels.add(residual, residual, out)
    b.kernels.rmsNorm(y, residual, norm, 1e-5, 0)
    b.kernels.linear(out, y, w)
  }
  const want = ['fusedLinear', 'linear', 'collective', 'addRmsNorm', 'linear', 'collective', 'add', 'fusedLinear']
  expect(b.fuse(step, { keep: [out] })).toEqual(want)
})

describe('a norm inside its linears', () => {
  const several =
    (...readers: (() => void)[]) =>
    () => {
      b.kernels.rmsNorm(y, x, norm, 1e-5, 0)
      for (const read of readers) read()
    }
  const into = (out: Tensor) => () => b.kernels.linear(out, y, w)
  test('one, or several', () => {
    expect(b.fuse(several(into(z)), { keep: [z] })).toEqual(['fusedLinear'])
    const other = b.temporary(2, 8)
    expect(b.fuse(several(into(z), into(other)), { keep: [z, other] })).toEqual(['fusedLinear', 'fusedLinear'])
  })
  test('not where one of them cannot, or another op reads it', () => {
    const other = b.temporary(2, 8)
    const fits: FusedFits = { ...everythingFits, linear: (out) => out !== other }
    expect(b.fuse(several(into(z), into(other)), { keep: [z, other], fits })).toEqual(['rmsNorm', 'linear', 'linear'])
    expect(
      b.fuse(
        several(into(z), () => b.kernels.copy(other, y)),
        { keep: [z, other] },
      ),
    ).toEqual(['rmsNorm', 'linear', 'copy'])
  })
  test('not where one of them overwrites what the norm reads', () => {
    const other = b.temporary(2, 8)
    expect(b.fuse(several(into(x), into(other)), { keep: [x, other] })).toEqual(['rmsNorm', 'linear', 'linear'])
  })
  test('not where the linear would read what it writes', () => {
    expect(b.fuse(several(into(x)), { keep: [x] })).toEqual(['rmsNorm', 'linear'])
  })
  test('not for a norm over heads', () => {
    const heads = b.vector(4)
    const perHead = () => {
      b.kernels.rmsNorm(y.view(2, 2, 4), x.view(2, 2, 4), heads, 1e-5, 0)
      b.kernels.linear(z, y, w)
    }
    expect(b.fuse(perHead, { keep: [z] })).toEqual(['rmsNorm', 'linear'])
  })
})

describe('other rules', () => {
  test('a linear adds in place only', () => {
    const add = (out: Tensor, a: Tensor, c: Tensor) => () => {
      b.kernels.linear(y, x, w)
      b.kernels.add(out, a, c)
    }
    expect(b.fuse(add(z, z, y), { keep: [z] })).toEqual(['fusedLinear'])
    expect(b.fuse(add(z, y, z), { keep: [z] })).toEqual(['fusedLinear'])
    expect(b.fuse(add(z, residual, y), { keep: [z] })).toEqual(['linear', 'add'])
    expect(b.fuse(add(y, y, y), { keep: [y] })).toEqual(['linear', 'add'])
  })
  test('only zero is no summand', () => {
    const first = (value: number) => () => {
      b.kernels.fill(y, value)
      b.kernels.addRmsNorm(y, residual, y, norm, 1e-5, 0)
    }
    expect(b.fuse(first(0), { keep: [y] })).toEqual(['rmsNorm'])
    expect(b.fuse(first(1), { keep: [y] })).toEqual(['fill', 'addRmsNorm'])
  })
  test('a norm before the sum, of whole rows', () => {
    const chain = (first: () => void) => () => {
      first()
      b.kernels.addRmsNorm(x, residual, y, norm, 1e-5, 0)
    }
    expect(
      b.fuse(
        chain(() => b.kernels.rmsNorm(y, x, norm, 1e-5, 0)),
        { keep: [x] },
      ),
    ).toEqual(['fusedNorms'])
    expect(
      b.fuse(
        chain(() => b.kernels.rmsNorm(y, z, norm, 1e-5, 0)),
        { keep: [x] },
      ),
    ).toEqual(['fusedNorms'])
    expect(
      b.fuse(
        chain(() => b.kernels.rmsNorm(y, y, norm, 1e-5, 0)),
        { keep: [x] },
      ),
    ).toEqual(['fusedNorms'])
    expect(
      b.fuse(
        chain(() => b.kernels.rmsNorm(y, x, norm, 1e-5, 0)),
        { keep: [x, y] },
      ),
    ).toEqual(['rmsNorm', 'addRmsNorm'])
    expect(
      b.fuse(
        chain(() => b.kernels.rmsNorm(y, residual, norm, 1e-5, 0)),
        { keep: [x] },
      ),
    ).toEqual(['rmsNorm', 'addRmsNorm'])
    const heads = b.vector(4)
    const perHead = () => b.kernels.rmsNorm(y.view(2, 2, 4), x.view(2, 2, 4), heads, 1e-5, 0)
    expect(b.fuse(chain(perHead), { keep: [x] })).toEqual(['rmsNorm', 'addRmsNorm'])
  })
  test('a row among several is gathered', () => {
    const rows = b.arena.empty([1], 'i32')
    const last = b.temporary(1, 8)
    const out = b.temporary(1, 8)
    const gather = (from: Tensor) => () => {
      b.kernels.gatherRows(last, from, rows)
      b.kernels.linear(out, last, w)
    }
    expect(b.fuse(gather(x), { keep: [out] })).toEqual(['gatherRows', 'linear'])
    expect(b.fuse(gather(x.narrow(0, 1, 1)), { keep: [out] })).toEqual(['linear'])
  })
})

/** Lists that no model would make: tensors that lie over one another in part, read and written in any order. */
describe('random lists', () => {
  test.each(Array.from({ length: 300 }, (_, seed) => seed))('%i', (seed) => {
    const bench = new Bench()
    const random = new Random(seed)
    const weights = [bench.weight(8, 8), bench.weight(8, 8), bench.weight(16, 8)]
    const scales = [bench.vector(8), bench.vector(8)]
    const slab = bench.arena.empty([64], 'f32')
    const blocks = Array.from({ length: 6 }, () => bench.temporary(2, 24))
    // Few places, so that they often meet: whole blocks, their columns, their rows, and all over a slab that is always live.
    const tensor = (columns: number): Tensor => {
      if (random.uniform() < 0.08)
        return new Tensor(slab.address + 16 * random.below(3), 'f32', [2, columns], [24, 1], bench.arena, slab.block)
      const block = blocks[random.below(blocks.length)]!
      const start = random.uniform() < 0.8 ? 0 : 4 * random.below((24 - columns) / 4 + 1)
      return block.narrow(1, start, columns)
    }
    const pick = <T>(items: readonly T[]): T => items[random.below(items.length)]!
    const k = bench.kernels
    let recent = tensor(8)
    const input = () => (random.uniform() < 0.7 ? recent : tensor(8))
    const made = (t: Tensor) => {
      recent = t
    }
    const OPS: (() => void)[] = [
      () => {
        const [out, source] = [tensor(8), input()]
        k.linear(out, source, pick(weights.slice(0, 2)), random.uniform() < 0.3 ? pick(scales) : undefined)
        made(out)
      },
      () => {
        const out = tensor(8)
        k.rmsNorm(out, input(), pick(scales), 1e-3, 0)
        made(out)
      },
      () => {
        const source = input()
        const out = random.uniform() < 0.5 ? source : tensor(8)
        k.addRmsNorm(out, tensor(8), source, pick(scales), 1e-3, 0)
        made(out)
      },
      () => {
        const [wide, out, source] = [tensor(16), tensor(8), input()]
        k.linear(wide, source, weights[2]!)
        k.activateAndMul(out, wide, 'silu')
        made(out)
      },
      () => {
        const [out, source] = [tensor(8), input()]
        k.add(out, out, source)
      },
      () => k.fill(tensor(8), random.uniform() < 0.5 ? 0 : 1),
      () => {
        const out = tensor(8)
        k.copy(out, input())
        made(out)
      },
    ]
    const calls = bench.recorder.record(() => {
      for (let i = 0; i < 25; i++) pick(OPS)()
    })
    for (const block of blocks) block.block.live = random.uniform() < 0.3
    const { entries } = fuse(calls, { fits: everythingFits, layout: bench.device })

    const ops = emulated(bench.device, bench.real.kernels)
    const run = (list: readonly Call[]): Float32Array[] => {
      const start = new Random(seed + 1)
      bench.real.upload(slab, start.normals(slab.size))
      for (const block of blocks) bench.real.upload(block, start.normals(block.size))
      for (const call of list) launch(ops, call)
      return [slab, ...blocks.filter((t) => t.block.live)].map((t) => bench.real.download(t) as Float32Array)
    }
    expect(run(entries.map((e) => e.call))).toEqual(run(calls))
    fusions += calls.length - entries.length
  })
  test('were fused at all', () => {
    expect(fusions).toBeGreaterThan(100)
  })
})
let fusions = 0
