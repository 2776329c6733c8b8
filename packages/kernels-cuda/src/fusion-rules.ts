import type { PackedWeight, Tensor } from '@aphrodite/tensor'
import type { FusedFits, LinearExtras, RotaryExtras } from './fused-kernels.ts'
import type { FusionRule, Replacement } from './fusion.ts'
import type { FusionList } from './fusion-list.ts'
import { isSameView, overlaps, regionOf } from './regions.ts'
import { type Call, callOf } from './step-list.ts'

/**
 * What is fused, in the order in which it is tried. A row starts from one call and looks for the others: `producer` and
 * `readers` lead from tensor to call. It asks `fits` whether the device has such a kernel and gains by it.
 */
export const FUSION_RULES: readonly FusionRule[] = [
  {
    name: 'norm of zero plus residual',
    ops: ['fill', 'addRmsNorm'],
    from: 'addRmsNorm',
    match(list, i) {
      const [out, residual, x, weight, eps, weightOffset] = list.at(i, 'addRmsNorm')!.args
      const zero = list.producer(i, x)
      if (list.at(zero, 'fill')?.args[1] !== 0 || areMixed(out, residual)) return undefined
      const norm = callOf('rmsNorm', out, residual, weight, eps, weightOffset)
      return { removed: [zero, i], added: [{ at: i, call: norm }], unchanged: [residual] }
    },
  },
  {
    name: 'linear adds to the residual, then norm',
    ops: ['linear', 'addRmsNorm'],
    from: 'addRmsNorm',
    match(list, i, fits) {
      const [out, residual, x, weight, eps, weightOffset] = list.at(i, 'addRmsNorm')!.args
      const at = list.producer(i, x)
      const added = withExtras(linearAt(list, at), fits, { residual: true }, residual)
      if (!added || areMixed(out, residual)) return undefined
      const norm = callOf('rmsNorm', out, residual, weight, eps, weightOffset)
      return {
        removed: [at, i],
        added: [
          { at: i, call: added },
          { at: i, call: norm },
        ],
      }
    },
  },
  {
    name: 'norm adds to the residual, then norm',
    ops: ['rmsNorm', 'addRmsNorm'],
    from: 'addRmsNorm',
    match(list, i, fits) {
      const [out, residual, x, weight, eps, weightOffset] = list.at(i, 'addRmsNorm')!.args
      const at = list.producer(i, x)
      const first = list.at(at, 'rmsNorm')?.args
      // Of whole rows, not of heads.
      if (!first || x.shape.length !== 2 || first[0].shape.length !== 2 || areMixed(out, residual)) return undefined
      const norm = { weight: first[2], eps: first[3], weightOffset: first[4] }
      const call = callOf('fusedNorms', out, residual, first[1], norm, { weight, eps, weightOffset })
      return fits.norms(...call.args) ? { removed: [at, i], added: [{ at: i, call }] } : undefined
    },
  },
  {
    name: 'linear adds to what is there',
    ops: ['linear', 'add'],
    from: 'add',
    match(list, i, fits) {
      const [out, a, b] = list.at(i, 'add')!.args
      const y = isSameView(out, a) ? b : isSameView(out, b) ? a : undefined
      if (!y || areMixed(out, y)) return undefined
      const at = list.producer(i, y)
      const added = withExtras(linearAt(list, at), fits, { residual: true }, out)
      return added && { removed: [at, i], added: [{ at: i, call: added }] }
    },
  },
  {
    name: 'the only row is read where it is',
    ops: ['gatherRows', 'linear'],
    from: 'gatherRows',
    match(list, i, fits) {
      const [out, x] = list.at(i, 'gatherRows')!.args
      if (x.dim(0) !== 1 || out.dim(0) !== 1 || x.dtype !== out.dtype) return undefined
      return forAllReaders(list, i, out, ({ call, extras }) => {
        const [to, , weight, bias] = call.args as [Tensor, Tensor, PackedWeight, Tensor?]
        if (call.op === 'linear') return callOf('linear', to, x, weight, ...(bias ? [bias] : []))
        return fits.linear(to, x, weight, extras) ? callOf('fusedLinear', to, x, weight, extras) : undefined
      })
    },
  },
  {
    name: 'linear, activation and product',
    ops: ['linear', 'activateAndMul'],
    from: 'activateAndMul',
    match(list, i, fits) {
      const [out, x, activation] = list.at(i, 'activateAndMul')!.args
      const at = list.producer(i, x)
      const added = withExtras(linearAt(list, at), fits, { activation }, out)
      return added && { removed: [at, i], added: [{ at: i, call: added }] }
    },
  },
  {
    name: 'norm inside the linears that read it',
    ops: ['rmsNorm', 'linear'],
    from: 'rmsNorm',
    match(list, i, fits) {
      const [out, x, weight, eps, weightOffset] = list.at(i, 'rmsNorm')!.args
      if (x.shape.length !== 2) return undefined
      return forAllReaders(list, i, out, (linear) => withExtras(linear, fits, { norm: { weight, eps, weightOffset } }, linear.out, x))
    },
  },
  {
    name: 'norms, rotation and cache in attention',
    ops: ['rmsNorm', 'rmsNorm', 'rotary', 'writeCache', 'pagedAttention'],
    from: 'pagedAttention',
    match(list, i, fits) {
      const [out, q, cache, batch, options] = list.at(i, 'pagedAttention')!.args
      if (batch.maxQueryLength !== 1) return undefined
      let write = i - 1
      while (write >= 0 && list.at(write, 'writeCache')?.args[0].address !== cache.address) write--
      const found = rotatedWrite(list, write, q, i)
      if (!found || !isSameView(found.slots, batch.slots)) return undefined
      const call = callOf('fusedAttention', out, found.q, found.k, found.v, cache, batch, options, found.rotary)
      return fits.attention(...call.args) ? { removed: [...found.calls, i], added: [{ at: i, call }] } : undefined
    },
  },
  {
    name: 'norms, rotation and cache',
    ops: ['rmsNorm', 'rmsNorm', 'rotary', 'writeCache'],
    from: 'writeCache',
    match(list, i, fits) {
      const found = rotatedWrite(list, i)
      if (!found) return undefined
      const call = callOf('fusedRotaryWrite', found.q, found.k, found.v, found.cache, found.slots, found.rotary)
      return fits.rotaryWrite(...call.args) ? { removed: found.calls, added: [{ at: i, call }] } : undefined
    },
  },
]

const areMixed = (a: Tensor, b: Tensor): boolean => overlaps(regionOf(a), regionOf(b))

/** A linear, fused with something already or not yet. */
interface LinearCall {
  readonly call: Call<'linear' | 'fusedLinear'>
  readonly out: Tensor
  readonly x: Tensor
  readonly weight: PackedWeight
  readonly extras: LinearExtras
}

function linearAt(list: FusionList, i: number): LinearCall | undefined {
  const call = list.at(i, 'linear', 'fusedLinear')
  if (!call) return undefined
  const [out, x, weight] = call.args
  return { call, out, x, weight, extras: call.op === 'linear' ? { bias: call.args[3] } : call.args[3] }
}

/** The linear with one thing more to do, if a kernel does all of it together; it reads x and writes `out`. */
function withExtras(
  linear: LinearCall | undefined,
  fits: FusedFits,
  more: LinearExtras,
  out: Tensor,
  x: Tensor | undefined = linear?.x,
): Call<'fusedLinear'> | undefined {
  if (!linear || !x) return undefined
  const { weight, extras } = linear
  // After its product comes one thing alone; a norm comes before it, once.
  const last = more.residual || more.activation
  if (last ? extras.residual || extras.activation : extras.norm) return undefined
  const call = callOf('fusedLinear', out, x, weight, { ...extras, ...more })
  return fits.linear(...call.args) ? call : undefined
}

/** Replaces call i, which makes t, and all who read t, which are linears with x = t. */
function forAllReaders(list: FusionList, i: number, t: Tensor, change: (linear: LinearCall) => Call | undefined): Replacement | undefined {
  const readers = list.readers(i, t)
  const added = readers.flatMap((at) => {
    const linear = linearAt(list, at)
    const sees = linear && isSameView(linear.x, t) && linear.x.lastDim === t.lastDim && list.producer(at, t) === i
    const call = sees ? change(linear) : undefined
    return call ? [{ at, call }] : []
  })
  return added.length > 0 && added.length === readers.length ? { removed: [i, ...readers], added } : undefined
}

/**
 * The calls before the cache is written at `write`: keys and queries are turned, and before that perhaps normalised. q: the
 * queries as they are read at call `reader`; left out: those that are turned with the keys, which stay where they are.
 */
function rotatedWrite(list: FusionList, write: number, q?: Tensor, reader = write) {
  const written = list.at(write, 'writeCache')
  if (!written) return undefined
  const [cache, k, v, slots] = written.args
  const turn = list.producer(write, k)
  const rotation = list.at(turn, 'rotary')
  if (!rotation) return undefined
  const [turnedQ, turnedK, positions, cosSin, options] = rotation.args
  if (!isSameView(turnedK, k) || (q && (!isSameView(turnedQ, q) || list.producer(reader, q) !== turn))) return undefined
  const calls = [turn, write]
  const plain = { cache, slots, v, calls, q: turnedQ, k: turnedK, rotary: { positions, cosSin, options } as RotaryExtras }

  const qNorm = headNormAt(list, turn, turnedQ)
  const kNorm = headNormAt(list, turn, turnedK)
  if (!qNorm || !kNorm || qNorm.eps !== kNorm.eps || qNorm.weightOffset !== kNorm.weightOffset) return plain
  if (!q && !isSameView(qNorm.x, turnedQ)) return plain
  const norms = { q: qNorm.weight, k: kNorm.weight, eps: qNorm.eps, weightOffset: qNorm.weightOffset }
  const rotary: RotaryExtras = { ...plain.rotary, norms }
  return { ...plain, calls: [qNorm.at, kNorm.at, ...calls], q: qNorm.x, k: kNorm.x, rotary }
}

/** The norm over each head [tokens, heads, dim] that made t. */
function headNormAt(list: FusionList, i: number, t: Tensor) {
  const at = list.producer(i, t)
  const norm = list.at(at, 'rmsNorm')
  if (!norm) return undefined
  const [out, x, weight, eps, weightOffset] = norm.args
  const perHead = out.shape.length === 3 && out.shape.every((n, d) => n === t.shape[d])
  return perHead ? { at, x, weight, eps, weightOffset } : undefined
}
