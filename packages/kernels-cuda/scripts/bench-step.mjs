// Where the time of a captured step goes: the step as it is launched, the same unfused, each kind of call alone, one after
// the other as in the step, and what it costs that kinds alternate (a kernel that does not fit beside the one before starts late).
// node packages/kernels-cuda/scripts/bench-step.mjs [shape] [sequences] [context] [queries]
// queries: tokens that each sequence computes, the last ones of its context; 1: a decode step. Also timed then: walking through the
// model on the host, call by call. context may be a range, 100-1100, of which each sequence draws its own, or 100-1100:sorted.
import { readFileSync } from 'node:fs'
import { unquantized } from '../../layers/dist/index.js'
import { cachingLayers } from '../../layers/dist/internal.js'
import { ModelRegistry } from '../../models/dist/index.js'
import { Arena, nativeKernels, PAGE_TOKENS, PagedCache, singleRank, Tensor, upload, Workspace } from '../../tensor/dist/index.js'
import { nativeFits } from '../dist/capture.js'
import { createCudaDevice } from '../dist/device.js'
import { fusedAttention, fusedRotaryWrite } from '../dist/fused-attention.js'
import { fusedLinear } from '../dist/fused-linear.js'
import { fusedNorms } from '../dist/fused-norms.js'
import { fuse } from '../dist/fusion.js'
import { stretchesOf } from '../dist/interpreter.js'
import { interpreterFits, makeInterpreter } from '../dist/interpreter-call.js'
import { packedBytes, pageBytes } from '../dist/layouts.js'
import { loadNative } from '../dist/native.js'
import { Recorder } from '../dist/recorder.js'
import { textOf } from '../dist/step-text.js'

const [shape = 'qwen3-0.6b', sequences = '1', context = '256', queries = '1'] = process.argv.slice(2)
const rows = Number(sequences)
const perSequence = Number(queries)
const [range, order] = context.split(':')
const [least, most = least] = range.split('-').map(Number)
const contexts = Array.from({ length: rows }, (_, i) => least + ((Math.imul(i + 1, 0x9e3779b1) >>> 4) % (most - least + 1)))
if (order === 'sorted') contexts.sort((a, b) => b - a)
const columns = Math.ceil(most / PAGE_TOKENS)
const config = JSON.parse(readFileSync(new URL(`../../cli/shapes/${shape}/config.json`, import.meta.url), 'utf8'))

const real = createCudaDevice()
const native = loadNative()
const gpu = native.createContext(0)
const kernels = nativeKernels(native, gpu)
const recorder = new Recorder(kernels)
const device = {
  kind: 'cuda',
  kernels: recorder.kernels,
  supports: () => true,
  allocate: (bytes) => native.allocate(gpu, bytes),
  release: (address) => native.release(gpu, address),
  packedBytes,
  pageBytes,
  upload() {},
  download: (t) => new Float32Array(t.size).fill(1),
}

const model = await ModelRegistry.create(config)
const arena = new Arena(device, 1 << 30)
model.materialize({ device, arena, tp: singleRank, dtype: 'bf16', quantization: unquantized, maxModelLen: Math.max(4096, most) })
// Noise, not zeros: what large products take depends on how many bits change, by the power that it costs.
const noise = Float32Array.from({ length: 1 << 22 }, () => (Math.random() + Math.random() + Math.random() - 1.5) / 25)
const bf16 = (address, n) => new Tensor(address, 'bf16', [n], [1], arena, { live: true })
const pool = native.allocate(gpu, noise.length * 2)
upload(native, gpu, bf16(pool, noise.length), noise)
for (const { address, bytes } of arena.slabs)
  for (let at = 0; at < bytes / 2; at += noise.length) {
    const n = Math.min(noise.length, bytes / 2 - at)
    kernels.copy(bf16(address + at * 2, n), bf16(pool, n))
  }
const workspace = new Workspace(device, perSequence > 1 ? 2 ** 32 : 2 ** 30)
const caches = new Arena(device, 1 << 30)
const ints = (values, ...dims) => {
  // In the workspace, as the engine's are: what a model computes is allocated where its inputs are.
  const t = workspace.empty(dims.length ? dims : [values.length], 'i32')
  for (const [i, v] of values.entries()) if (v) kernels.fill(new Tensor(t.address + 4 * i, 'i32', [1], [1], workspace, t.block), v)
  return t
}
const pages = rows * columns + 1
const kvCaches = cachingLayers(model).map((layer) => {
  const { kvHeads, keyDim, valueDim } = layer.cacheSpec()
  const s = { kvHeads, keyDim, valueDim, dtype: 'bf16' }
  return { kind: 'paged', group: 0, pages: new PagedCache(caches.reserve(pages * pageBytes(s)), s, pages) }
})
const each = (f) => Array.from({ length: rows }, (_, i) => f(i))
/** One number for each token. */
const eachToken = (f) => each((i) => Array.from({ length: perSequence }, (_, t) => f(i, contexts[i] - perSequence + t))).flat()
const step = {
  inputIds: ints(eachToken((i, position) => i + position)),
  positions: ints(eachToken((_, position) => position)),
  promptLengths: ints(eachToken(() => 1)),
  logitRows: ints(each((i) => (i + 1) * perSequence - 1)),
  kvCaches,
  workspace,
  attnMetadata: [
    {
      kind: 'paged',
      slots: ints(
        eachToken((i, position) => (1 + i * columns + Math.floor(position / PAGE_TOKENS)) * PAGE_TOKENS + (position % PAGE_TOKENS)),
      ),
      queryStarts: ints([...each((i) => i * perSequence), rows * perSequence]),
      contextLengths: ints(contexts),
      pageTables: ints(each((i) => Array.from({ length: columns }, (_, c) => 1 + i * columns + c)).flat(), rows, columns),
      maxQueryLength: perSequence,
      maxContextLength: columns * PAGE_TOKENS,
    },
  ],
}
const tokens = caches.empty([rows], 'i32')
const floats = (value) => {
  const t = caches.empty([rows], 'f32')
  kernels.fill(t, value)
  return t
}
const sampling = {
  temperature: floats(0),
  topK: ints(each(() => 0)),
  topP: floats(1),
  minP: floats(0),
  seeds: ints(new Array(rows * 3).fill(0), rows, 3),
}
const walk = () => {
  const logits = workspace.tidy(workspace.empty([1], 'i32'), () => model.logits(model.forward(step), step))
  recorder.kernels.sample(tokens, logits, sampling)
}
if (perSequence > 1) {
  const hosts = []
  const walls = []
  for (let i = 0; i < 9; i++) {
    native.synchronize(gpu)
    const start = performance.now()
    walk()
    hosts.push(performance.now() - start)
    native.synchronize(gpu)
    walls.push(performance.now() - start)
  }
  const of = (xs) => xs.toSorted((a, b) => a - b)[4].toFixed(2)
  console.log(`walked through: ${of(walls)} ms, of which the host takes ${of(hosts)} ms`)
}
const calls = recorder.record(() => {
  walk()
  workspace.reset()
})
const { entries } = fuse(calls, { fits: nativeFits(native, gpu), layout: device })
const fused = entries.map((e) => e.call)
/** What the interpreter has cases for done by it, whether it gains by that or not. */
const interpreted = [...fused]
for (const stretch of stretchesOf(entries, interpreterFits(native, gpu)).reverse()) {
  const list = makeInterpreter(native, gpu, stretch)
  if (list !== undefined) interpreted.splice(stretch.from, stretch.to - stretch.from, { op: 'runInterpreter', args: [list] })
}

const ops = {
  ...kernels,
  fusedLinear: (...call) => fusedLinear(native, gpu, ...call),
  fusedNorms: (...call) => fusedNorms(native, gpu, ...call),
  fusedAttention: (...call) => fusedAttention(native, gpu, true, ...call),
  fusedRotaryWrite: (...call) => fusedRotaryWrite(native, gpu, ...call),
  runInterpreter: (list) => native.runInterpreter(gpu, list),
}
/** Median microseconds of a graph of these calls. */
function time(list) {
  native.beginCapture(gpu)
  for (const { op, args } of list) ops[op](...args)
  const graph = native.endCapture(gpu, 1)
  const run = (times) => {
    native.synchronize(gpu)
    const start = performance.now()
    for (let j = 0; j < times; j++) native.replay(gpu, graph)
    native.synchronize(gpu)
    return ((performance.now() - start) / times) * 1000
  }
  run(1)
  const times = run(1) > 20_000 ? 1 : 10
  const samples = Array.from({ length: times === 1 ? 5 : 12 }, () => run(times))
  native.releaseGraph(gpu, graph)
  return samples.sort((a, b) => a - b)[samples.length >> 1]
}
/** Calls of one kind and size. */
const kindOf = (call) => {
  const { op, operands } = textOf(call)
  return call.op.endsWith('inear') ? `${op} ${operands.match(/weight \S+ (\[.*?\])/)[1]}` : op
}
const bytesOf = (call) => (call.op.endsWith('inear') ? packedBytes('bf16', call.args[2].outFeatures, call.args[2].inFeatures) : 0)

console.log(`${real.description}: ${shape}, ${rows} sequences, ${context} tokens of context, ${perSequence} computed of each`)
console.log(
  `as enqueued ${calls.length} calls ${time(calls).toFixed(0)} us; as launched ${fused.length} calls ${time(fused).toFixed(0)} us`,
)
if (interpreted.length < fused.length) console.log(`with the interpreter ${interpreted.length} calls ${time(interpreted).toFixed(0)} us`)
const kinds = new Map()
for (const call of fused) kinds.set(kindOf(call), [...(kinds.get(kindOf(call)) ?? []), call])
const alone = new Map()
for (const [kind, list] of kinds) {
  const us = time(list)
  alone.set(kind, us)
  const bytes = list.reduce((sum, call) => sum + bytesOf(call), 0)
  const speed = bytes ? `  ${(bytes / us / 1000).toFixed(0)} GB/s, ${((list[0].args[1].dim(0) * bytes) / us / 1e6).toFixed(0)} TFLOP/s` : ''
  console.log(
    `${String(list.length).padStart(4)} x ${kind.padEnd(46)} ${us.toFixed(1).padStart(8)} us  ${(us / list.length).toFixed(2).padStart(7)} each${speed}`,
  )
}
console.log(
  `together ${[...alone.values()].reduce((a, b) => a + b, 0).toFixed(0)} us; what following one another costs two kinds, beyond both alone:`,
)
const pairs = new Map()
for (let i = 1; i < fused.length; i++) {
  const [a, b] = [kindOf(fused[i - 1]), kindOf(fused[i])]
  if (a !== b && kinds.get(a).length > 1 && kinds.get(b).length > 1) pairs.set(`${a} -> ${b}`, [a, b])
}
for (const [name, [a, b]] of pairs) {
  const list = fused.filter((call) => [a, b].includes(kindOf(call)))
  console.log(`  ${name.padEnd(92)} ${(((time(list) - alone.get(a) - alone.get(b)) / list.length) * 2).toFixed(2).padStart(6)} us a pair`)
}
native.destroyContext(gpu)
real.close()
