// Times of ops on rows, captured in a graph of many calls: norms, activations, copies, and sampling beside the time in which the
// device reads the logits once.
//
//   node scripts/bench-rows.mjs [norms] [sampling] [--rows 1,8,64,256] [--peaked]
//
// --peaked: logits of which few are far above all others, as a trained model has them; otherwise normal numbers, 3 wide.
import { performance } from 'node:perf_hooks'
import { Arena } from '@aphrodite/tensor'
import { Random } from '@aphrodite/testing'
import { createCudaDevice } from '../dist/index.js'

const named = process.argv.slice(2).filter((a, i, all) => !a.startsWith('--') && !all[i - 1]?.startsWith('--rows'))
const wants = (part) => named.length === 0 || named.includes(part)
const at = process.argv.indexOf('--rows')
const ROWS = at < 0 ? [1, 8, 64, 256] : process.argv[at + 1].split(',').map(Number)
const peaked = process.argv.includes('--peaked')

const device = createCudaDevice()
const { kernels } = device
console.log(device.description)
const SLAB = 2 ** 30
const slab = device.allocate(SLAB)
const bandwidth = SLAB / Math.min(...Array.from({ length: 5 }, () => device.readSeconds(slab, SLAB)))
console.log(`read bandwidth ${(bandwidth / 1e9).toFixed(0)} GB/s`)
for (const dtype of ['bf16', 'f16', 'f32']) {
  console.log(`mma.sync / fma peak in registers, ${dtype}: ${(device.operationsPerSecond(dtype) / 1e12).toFixed(1)} TFLOP/s`)
}
const random = new Random(7)
let arena = new Arena(device, 2 ** 26)
const tensor = (shape, dtype) => arena.empty(shape, dtype)
function forget() {
  arena.release()
  arena = new Arena(device, 2 ** 26)
}

/** Microseconds of a call: the median of some replays of a graph of `calls`. */
async function time(calls, enqueue) {
  const graph = device.capture(() => {
    for (let i = 0; i < calls; i++) enqueue(i)
  })
  graph.replay()
  await device.synchronize()
  const times = []
  for (let i = 0; i < 7; i++) {
    const start = performance.now()
    graph.replay()
    await device.synchronize()
    times.push(performance.now() - start)
  }
  graph.release()
  return (times.sort((a, b) => a - b)[3] * 1000) / calls
}
const line = (name, us, bytes) =>
  console.log(
    `${name.padEnd(44)} ${us.toFixed(2).padStart(8)} us ${(bytes / us / 1e3).toFixed(0).padStart(6)} GB/s ${((100 * bytes) / us / 1e-6 / bandwidth).toFixed(0).padStart(4)} %`,
  )

if (wants('norms')) {
  for (const [rows, n] of [
    [1, 4096],
    [1, 1024],
    [8192, 4096],
    [8192, 1024],
    [8192 * 16, 128],
  ]) {
    const calls = rows === 1 ? 200 : 8
    const weight = () => {
      forget()
      const w = tensor([n], 'bf16')
      device.upload(w, random.normals(n, 0.1, 1))
      return w
    }
    const make = (dtype) => Array.from({ length: calls }, () => tensor([rows, n], dtype))
    // Chains: a call reads what the one before wrote, as the ops of a step do.
    let w = weight()
    const x = make('bf16')
    line(`rmsNorm bf16 [${rows}, ${n}]`, await time(calls, (i) => kernels.rmsNorm(x[(i + 1) % calls], x[i], w, 1e-5, 0)), rows * n * 4)
    w = weight()
    const r = tensor([rows, n], 'f32')
    const y = make('bf16')
    line(
      `addRmsNorm bf16, residual f32 [${rows}, ${n}]`,
      await time(calls, (i) => kernels.addRmsNorm(y[(i + 1) % calls], r, y[i], w, 1e-5, 0)),
      rows * n * 12,
    )
    w = weight()
    const z = make('bf16')
    line(`layerNorm bf16 [${rows}, ${n}]`, await time(calls, (i) => kernels.layerNorm(z[(i + 1) % calls], z[i], w, w, 1e-5)), rows * n * 4)
  }
  for (const [rows, n] of [
    [1, 14336],
    [1, 3072],
    [8192, 14336],
    [8192, 3072],
  ]) {
    const calls = rows === 1 ? 200 : 4
    forget()
    const [x, y] = [tensor([rows, 2 * n], 'bf16'), tensor([rows, n], 'bf16')]
    for (const f of ['silu', 'geluTanh', 'gelu'])
      line(`activateAndMul ${f} bf16 [${rows}, ${n}]`, await time(calls, () => kernels.activateAndMul(y, x, f)), rows * n * 6)
  }
  forget()
  const big = 64 * 1024 * 1024
  const [a, b, f] = [tensor([1, big], 'bf16'), tensor([1, big], 'bf16'), tensor([1, big], 'f32')]
  line('add bf16 64 Mi', await time(4, () => kernels.add(a, a, b)), big * 6)
  line('copy bf16 64 Mi', await time(4, () => kernels.copy(a, b)), big * 4)
  line('copy bf16 → f32 64 Mi', await time(4, () => kernels.copy(f, b)), big * 6)
  line('fill f32 64 Mi', await time(4, () => kernels.fill(f, 1)), big * 4)
}

if (wants('sampling')) {
  const VOCAB = 151_936
  const most = Math.max(...ROWS)
  forget()
  const logits = tensor([most, VOCAB], 'f32')
  const noise = random.normals(16 * VOCAB, peaked ? 1 : 3)
  if (peaked) for (let r = 0; r < 16; r++) for (let i = 0; i < 12; i++) noise[r * VOCAB + random.below(VOCAB)] = 22 - i
  for (let r = 0; r < most; r += 16) {
    const n = Math.min(16, most - r)
    device.upload(logits.narrow(0, r, n), noise.subarray(0, n * VOCAB))
  }
  const all = { temperature: 1, topK: 0, topP: 1, minP: 0 }
  const WAYS = [
    ['greedy', { ...all, temperature: 0 }],
    ['plain', all],
    ['plain 0.6', { ...all, temperature: 0.6 }],
    ['top-k 20', { ...all, topK: 20 }],
    ['top-k 50, top-p 0.95', { ...all, topK: 50, topP: 0.95 }],
    ['top-k 1000', { ...all, topK: 1000 }],
    ['top-k 20000', { ...all, topK: 20_000 }],
    ['top-p 0.9', { ...all, topP: 0.9 }],
    ['top-p 0.5', { ...all, topP: 0.5 }],
    ['min-p 0.05', { ...all, minP: 0.05 }],
  ]
  for (const rows of ROWS) {
    const x = logits.narrow(0, 0, rows)
    const bytes = rows * VOCAB * 4
    const calls = rows < 32 ? 20 : 5
    // The same in a chain of captured ops: the quickest kernel that touches every logit.
    const read = 1e6 * Math.min(...Array.from({ length: 5 }, () => device.readSeconds(x.address, bytes)))
    console.log(`\n[${rows}, ${VOCAB}]${peaked ? ' peaked' : ''}: read once ${read.toFixed(2)} us`)
    const tokens = tensor([rows], 'i32')
    const vector = (dtype, value) => {
      const t = tensor([rows], dtype)
      device.upload(t, dtype === 'i32' ? new Int32Array(rows).fill(value) : new Float32Array(rows).fill(value))
      return t
    }
    const seeds = tensor([rows, 3], 'i32')
    device.upload(
      seeds,
      Int32Array.from({ length: rows * 3 }, () => random.word() | 0),
    )
    for (const [name, { temperature, topK, topP, minP }] of WAYS) {
      const batch = {
        temperature: vector('f32', temperature),
        topK: vector('i32', topK),
        topP: vector('f32', topP),
        minP: vector('f32', minP),
        seeds,
      }
      const us = await time(calls, () => kernels.sample(tokens, x, batch))
      console.log(`  ${name.padEnd(24)} ${us.toFixed(2).padStart(9)} us  ${(us / read).toFixed(2).padStart(6)} x`)
    }
    const [values, ids, ranks, chosen] = [tensor([rows, 21], 'f32'), tensor([rows, 21], 'i32'), tensor([rows], 'i32'), vector('i32', 5)]
    const us = await time(calls, () => kernels.logProbs(values, ids, ranks, x, chosen))
    console.log(`  ${'logProbs of 20'.padEnd(24)} ${us.toFixed(2).padStart(9)} us  ${(us / read).toFixed(2).padStart(6)} x`)
    const lists = Int32Array.from({ length: rows * 512 }, () => random.below(VOCAB))
    const [offsets, listed] = [tensor([rows + 1], 'i32'), tensor([rows * 512], 'i32')]
    device.upload(
      offsets,
      Int32Array.from({ length: rows + 1 }, (_, i) => i * 512),
    )
    device.upload(listed, lists)
    const history = { promptOffsets: offsets, promptIds: listed, outputOffsets: offsets, outputIds: listed }
    const penalties = { repetition: vector('f32', 1.0001), presence: vector('f32', 1e-5), frequency: vector('f32', 1e-5) }
    const penalty = await time(calls, () => kernels.penalize(x, penalties, history))
    console.log(`  ${'penalize, 512 + 512 ids'.padEnd(24)} ${penalty.toFixed(2).padStart(9)} us`)
    const added = tensor([rows * 512], 'f32')
    device.upload(added, random.normals(rows * 512, 1e-5))
    const sparse = await time(calls, () => kernels.addSparse(x, offsets, listed, added))
    console.log(`  ${'addSparse, 512 ids'.padEnd(24)} ${sparse.toFixed(2).padStart(9)} us`)
  }
}
arena.release()
device.release(slab)
device.close()
