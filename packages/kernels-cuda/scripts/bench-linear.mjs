// Reading speed of products of few rows, weights in bf16, in GB/s of weights: captured in graphs over copies that no cache holds.
//
//   node scripts/bench-linear.mjs [--tokens 1,2,4,8] [--shapes 8B,1B] [--plain | --fused] [--plans]
//
// --plain: product alone; --fused: as a decoder layer uses it (norm in front of qkv, gate/up and head for 1 and 2 tokens, residual
// behind o and down, silu behind gate/up). --plans: every way to divide the work, the best of them printed beside the default.
import { performance } from 'node:perf_hooks'
import { createCudaDevice } from '../dist/index.js'
import { findNative } from '../dist/native.js'

const option = (name) => {
  const at = process.argv.indexOf(`--${name}`)
  return at < 0 ? undefined : (process.argv[at + 1] ?? '')
}
const flag = (name) => process.argv.includes(`--${name}`)
const BF16 = 1
const F32 = 0

const SHAPES = [
  ['8B qkv', 6144, 4096],
  ['8B o', 4096, 4096],
  ['8B gate_up', 28672, 4096],
  ['8B down', 4096, 14336],
  ['8B head', 128256, 4096],
  ['1B qkv', 3072, 2048],
  ['1B o', 2048, 2048],
  ['1B gate_up', 16384, 2048],
  ['1B down', 2048, 8192],
  ['1B head', 128256, 2048],
  ['0.6B qkv', 4096, 1024],
  ['0.6B o', 1024, 2048],
  ['0.6B gate_up', 6144, 1024],
  ['0.6B down', 1024, 3072],
  ['0.6B head', 151936, 1024],
]

const described = createCudaDevice()
console.log(described.description)
described.close()
const { native, reason } = findNative()
if (!native) throw new Error(reason)
const context = native.createContext(0)
const { sharedBytes, capability } = native.describeContext(context)

const SLAB = 2 ** 30
const slab = native.allocate(context, SLAB)
const noise = Uint16Array.from({ length: 2 ** 24 }, () => {
  const bits = Math.random() * 65536
  return (bits & 0x807f) | 0x3c00
})
for (let at = 0; at < SLAB; at += noise.length * 2) native.upload(context, slab + at, BF16, noise, BF16, 1, noise.length, 1, 1)
const x = native.allocate(context, 32 * 14336 * 4)
native.upload(context, x, BF16, noise, BF16, 1, 32 * 14336, 1, 1)
const residual = native.allocate(context, 32 * 14336 * 4)
native.upload(
  context,
  residual,
  F32,
  Float32Array.from({ length: 32 * 14336 }, () => Math.random() - 0.5),
  F32,
  1,
  32 * 14336,
  1,
  1,
)
const norm = native.allocate(context, 14336 * 2)
native.upload(context, norm, BF16, noise, BF16, 1, 14336, 1, 1)
const out = native.allocate(context, 32 * 151936 * 4)

const bandwidth = SLAB / Math.min(...Array.from({ length: 5 }, () => native.readSeconds(context, slab, SLAB))) / 1e9
console.log(`read bandwidth ${bandwidth.toFixed(0)} GB/s`)

/** What fusedLinear gets for copy i of the weight. */
function call([name, n, k], tokens, fused, i) {
  const copies = Math.max(1, Math.min(64, Math.floor(SLAB / (n * k * 2))))
  const weight = [slab + (i % copies) * n * k * 2, BF16, n, k]
  const kind = name.split(' ')[1]
  const normed = fused && tokens <= 2 && kind !== 'o' && kind !== 'down'
  const input = normed ? [residual, F32, tokens, k, k] : [x, BF16, tokens, k, k]
  const none = [0, 0, 0]
  const gain = normed ? [norm, BF16, k] : none
  if (fused && kind === 'gate_up') return [out, BF16, tokens, n / 2, n / 2, ...input, ...weight, ...none, ...gain, 1e-5, 0, 0, 0]
  if (fused && (kind === 'o' || kind === 'down')) return [out, F32, tokens, n, n, ...input, ...weight, ...none, ...gain, 1e-5, 0, 1, -1]
  return [out, kind === 'head' ? F32 : BF16, tokens, n, n, ...input, ...weight, ...none, ...gain, 1e-5, 0, 0, -1]
}
function wish(shape, tokens, fused) {
  const c = call(shape, tokens, fused, 0)
  const [residualFlag, activation] = c.slice(-2)
  return [tokens, BF16, shape[1], shape[2], c[6], c[1], c[17] === 0 ? 0 : 1, residualFlag, activation]
}

/** Seconds of one product; undefined where the plan cannot be done. */
function seconds(shape, tokens, fused, plan, repetitions) {
  const [, n, k] = shape
  const calls = Math.max(4, Math.min(48, Math.floor(SLAB / (n * k * 2))))
  if (!native.fusedLinearBy(context, ...plan, ...call(shape, tokens, fused, 0))) return undefined
  native.beginCapture(context)
  for (let i = 0; i < calls; i++) native.fusedLinearBy(context, ...plan, ...call(shape, tokens, fused, i))
  const graph = native.endCapture(context, 1)
  native.replay(context, graph)
  native.synchronize(context)
  let best = Number.POSITIVE_INFINITY
  for (let i = 0; i < repetitions; i++) {
    const start = performance.now()
    for (let j = 0; j < 4; j++) native.replay(context, graph)
    native.synchronize(context)
    best = Math.min(best, (performance.now() - start) / 4e3 / calls)
  }
  native.releaseGraph(context, graph)
  return best
}

function* plans(shape) {
  const lines = Math.ceil(shape[2] / 64)
  for (const bytes of [112 * 1024, 164 * 1024, sharedBytes])
    for (const slot of new Set([8, 16, 32, 56, lines]))
      for (const kind of [1, 2]) if (slot <= lines && slot * 1024 < bytes) yield [kind, slot, bytes]
  yield [0, lines, sharedBytes]
}

const tokensList = (option('tokens') ?? '1,2,4,8').split(',').map(Number)
const wanted = option('shapes')?.split(',')
const kinds = flag('plain') ? [false] : flag('fused') ? [true] : [false, true]
for (const shape of SHAPES.filter(([name]) => !wanted || wanted.some((w) => name.includes(w)))) {
  const bytes = shape[1] * shape[2] * 2
  for (const fused of kinds) {
    const cells = []
    for (const tokens of tokensList) {
      const plan = native.fusedLinearPlan(context, ...wish(shape, tokens, fused))
      const speed = (p, repetitions) => {
        const s = seconds(shape, tokens, fused, p, repetitions)
        return s === undefined ? undefined : bytes / s / 1e9
      }
      const own = speed(plan, 3)
      let cell = `${tokens}: ${own === undefined ? 'none' : own.toFixed(0)}`
      if (flag('plans') && capability >= 90) {
        const tried = [...plans(shape)].map((p) => ({ p, v: speed(p, 1) })).filter((t) => t.v !== undefined)
        tried.sort((a, b) => b.v - a.v)
        const again = tried.slice(0, 6).map(({ p }) => ({ p, v: speed(p, 3) }))
        again.sort((a, b) => b.v - a.v)
        cell += ` [${plan.slice(0, 2)},${plan[2] >> 10}K] best ${again.slice(0, 4).map(({ p, v }) => `${v.toFixed(0)} [${p.slice(0, 2)},${p[2] >> 10}K]`)}`
        cell = `\n    ${cell}`
      }
      cells.push(cell)
    }
    console.log(`${shape[0].padEnd(13)} ${fused ? 'fused' : 'plain'} ${(bytes / 1e6).toFixed(1).padStart(6)} MB GB/s  ${cells.join('  ')}`)
  }
}
native.destroyContext(context)
