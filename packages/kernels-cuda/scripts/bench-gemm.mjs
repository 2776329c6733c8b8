// Products of large batches beside PyTorch's on the same card, bf16: node scripts/bench-gemm.mjs [--own] [--quick] [--f32]
//
// --own: without cuBLASLt. --f32: f32 weights, few rows and many. Weights take turns, so that no cache holds them; each result is
// checked at random places against sums in f64 first.
import { spawnSync } from 'node:child_process'
import { performance } from 'node:perf_hooks'
import { Arena } from '@aphrodite/tensor'

const flag = (name) => process.argv.includes(`--${name}`)
if (flag('own')) process.env.APHRODITE_CUBLAS = '0'
const { createCudaDevice } = await import('../dist/index.js')

const LAYERS = [
  ['qkv', 6144, 4096],
  ['o', 4096, 4096],
  ['gate_up', 28672, 4096],
  ['down', 4096, 14336],
]
const TOKENS = flag('f32') ? [1, 4, 8, 16, 64, 2048] : flag('quick') ? [64, 2048] : [32, 64, 128, 256, 512, 2048, 8192]
const CASES = [...LAYERS.flatMap(([name, n, k]) => TOKENS.map((m) => [name, n, k, m]))]
if (!flag('f32')) CASES.unshift(['square', 8192, 8192, 8192])
const DTYPE = flag('f32') ? 'f32' : 'bf16'
const SIZE = flag('f32') ? 4 : 2

const TORCH = `
import json, sys, torch
torch.backends.cuda.matmul.allow_tf32 = False
t = torch.${flag('f32') ? 'float32' : 'bfloat16'}
for name, n, k, m in json.loads(sys.argv[1]):
    copies = max(1, min(8, int(4e8 / (n * k))))
    ws = [torch.randn(n, k, device='cuda', dtype=t) for _ in range(copies)]
    x = torch.randn(m, k, device='cuda', dtype=t)
    out = torch.empty(m, n, device='cuda', dtype=t)
    calls = 8 if m > 1024 else 32
    for w in ws: torch.matmul(x, w.t(), out=out)
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        for i in range(calls): torch.matmul(x, ws[i % copies].t(), out=out)
    best = 1e9
    g.replay()
    for _ in range(4):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record(); g.replay(); b.record(); b.synchronize()
        best = min(best, a.elapsed_time(b) / calls * 1e3)
    print(best)
`

const device = createCudaDevice()
console.log(device.description)

/** Bits of normal-like numbers, and the numbers. */
const noise = Float32Array.from({ length: 1 << 22 }, () => Math.random() + Math.random() + Math.random() + Math.random() - 2)
const noiseBits = new Uint32Array(noise.buffer).map((b) => (flag('f32') ? b : b & 0xffff0000))
new Uint32Array(noise.buffer).set(noiseBits)
const bytes = flag('f32') ? new Uint8Array(noise.buffer) : new Uint8Array(Uint16Array.from(noiseBits, (b) => b >>> 16).buffer)

/** Number i of a matrix that begins at this number of the noise. */
const at = (start, i) => noise[(start + i) % noise.length]

function fillWeight(w, start) {
  const { outFeatures: n, inFeatures: k } = w
  const rows = Math.floor(noise.length / k / 2)
  // A row follows the one before it in the noise; blocks start anew so that they stay inside it.
  for (let r = 0; r < n; r += rows) {
    const count = Math.min(rows, n - r)
    device.pack(w, { bytes: bytes.subarray(start * SIZE), dtype: DTYPE, shape: [count, k], strides: [k, 1] }, r, 0)
  }
  return (row, i) => at(start, (row % rows) * k + i)
}

async function time(n, k, m) {
  const arena = new Arena(device, 1 << 20)
  const copies = Math.max(1, Math.min(8, Math.floor(4e8 / (n * k))))
  const weights = Array.from({ length: copies }, () => arena.packed(n, k, DTYPE))
  const values = weights.map((w, i) => fillWeight(w, i * 1000))
  const x = arena.empty([m, k], DTYPE)
  for (let r = 0; r < m; r++) {
    const from = ((r * 37) % 400) * 1024
    device.upload(x.narrow(0, r, 1), {
      bytes: bytes.subarray(from * SIZE, (from + k) * SIZE),
      dtype: DTYPE,
      shape: [1, k],
      strides: [k, 1],
    })
  }
  const out = arena.empty([m, n], DTYPE)
  const { kernels } = device
  kernels.linear(out, x, weights[0])
  const checked = Math.min(m, 3)
  let worst = 0
  for (let i = 0; i < checked; i++) {
    const r = i === 0 ? m - 1 : Math.floor(Math.random() * m)
    const row = device.download(out.narrow(0, r, 1))
    for (let j = 0; j < 40; j++) {
      const c = j === 0 ? n - 1 : Math.floor(Math.random() * n)
      let sum = 0
      for (let q = 0; q < k; q++) sum += at(((r * 37) % 400) * 1024, q) * values[0](c, q)
      worst = Math.max(worst, Math.abs(sum - row[c]) / (Math.abs(sum) * 2 ** (flag('f32') ? -20 : -8) + Math.sqrt(k) * 1e-5))
    }
  }
  const calls = m > 1024 ? 8 : 32
  const graph = device.capture(() => {
    for (let i = 0; i < calls; i++) kernels.linear(out, x, weights[i % copies])
  })
  graph.replay()
  await device.synchronize()
  let best = Number.POSITIVE_INFINITY
  for (let i = 0; i < 4; i++) {
    const start = performance.now()
    graph.replay()
    await device.synchronize()
    best = Math.min(best, ((performance.now() - start) * 1e3) / calls)
  }
  graph.release()
  arena.release()
  return { us: best, worst }
}

const ours = []
for (const [name, n, k, m] of CASES) ours.push(await time(n, k, m, name))
device.close()
const torch = spawnSync('python3', ['-c', TORCH, JSON.stringify(CASES)], { encoding: 'utf8' })
const theirs = torch.status === 0 ? torch.stdout.trim().split('\n').map(Number) : []
if (torch.status !== 0) console.log(`PyTorch: ${(torch.stderr ?? 'not here').trim().split('\n').at(-1)}`)
console.log(
  `${'product'.padEnd(9)} ${'n'.padStart(6)} ${'k'.padStart(6)} ${'m'.padStart(5)}      µs  TFLOP/s   GB/s  torch µs  ours/torch  worst error`,
)
CASES.forEach(([name, n, k, m], i) => {
  const { us, worst } = ours[i]
  const columns = [
    name.padEnd(9),
    String(n).padStart(6),
    String(k).padStart(6),
    String(m).padStart(5),
    us.toFixed(1).padStart(7),
    ((2 * n * k * m) / us / 1e6).toFixed(1).padStart(8),
    ((n * k * SIZE) / us / 1e3).toFixed(0).padStart(6),
    theirs[i] ? theirs[i].toFixed(1).padStart(9) : '',
    theirs[i] ? (us / theirs[i]).toFixed(3).padStart(11) : '',
    `${worst.toFixed(2)}${worst > 1 ? ' WRONG' : ''}`.padStart(12),
  ]
  console.log(columns.join(' '))
})
if (ours.some(({ worst }) => !(worst <= 1))) process.exit(1)
