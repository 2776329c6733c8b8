// One rank of communicator.test.ts, in a worker thread or a process of its own: it does the steps that it is given and reports
// what came of each.
import { parentPort, workerData } from 'node:worker_threads'
import { createCpuCommunicator, createCpuDevice } from '@aphrodite/kernels-cpu'
import { Arena } from '@aphrodite/tensor'

const { rank, size, transport, timeoutMs = 20_000, threads = 1, isa = 'auto', steps, sums } = workerData ?? JSON.parse(process.argv[2])
const report = (message) => (parentPort ? parentPort.postMessage(message) : process.send(message))

const device = createCpuDevice({ threads, pin: false, isa })
const arena = new Arena(device)

/** What rank r starts from: the test computes the same. */
const value = (r, seed, i) => Math.sin(i * 0.37 + seed + r * 1.7) * (r + 1)

function perform(tp, { op, dtype = 'f32', rows = 1, cols = 1, stride = cols, seed = 0, repeat = 1, capture = false }) {
  const wide = arena.empty([rows, stride], dtype)
  const x = wide.narrow(1, stride - cols, cols)
  const out = arena.empty([rows, cols * size + stride - cols], dtype).narrow(1, stride - cols, cols * size)
  const start = new Float32Array(rows * cols)
  for (let i = 0; i < start.length; i++) start[i] = value(rank, seed, i)
  device.kernels.fill(wide, -7)
  device.upload(x, start)
  const run = () => (op === 'allReduce' ? tp.allReduce(x) : tp.allGather(out, x))
  const graph = capture ? device.capture(run) : { replay: run, release() {} }
  for (let i = 0; i < repeat; i++) {
    if (i > 0) device.upload(x, start)
    graph.replay()
  }
  graph.release()
  const untouched = device.download(wide.narrow(1, 0, stride - cols || 1)).every((v) => v === -7 || stride === cols)
  return { result: device.download(op === 'allReduce' ? x : out), untouched }
}

/** Many small sums, each checked here: f32 integers are exact. */
function performSums(tp, count) {
  const x = arena.empty([1, 33], 'f32')
  for (let i = 0; i < count; i++) {
    device.upload(x, new Float32Array(33).fill(i + rank))
    tp.allReduce(x)
    const got = device.download(x)
    const want = size * i + (size * (size - 1)) / 2
    if (!got.every((v) => v === want)) return { wrong: i, got, want }
  }
  return { sums: count }
}

let tp
try {
  tp = await createCpuCommunicator(device, { rank, size, transport, timeoutMs })
  report({ joined: tp.handle })
  if (sums) report(performSums(tp, sums))
  for (const step of steps ?? []) {
    if (step.pauseMs?.[rank]) await new Promise((resolve) => setTimeout(resolve, step.pauseMs[rank]))
    if (step.kill === rank) process.kill(process.pid, 'SIGKILL')
    if (step.exit === rank) process.exit(0)
    if (step.close === rank) break
    report(perform(tp, { ...step, ...step.ranks?.[rank] }))
  }
} catch (e) {
  report({ code: e.code, message: e.message })
}
tp?.close()
arena.release()
device.close()
report({ done: true })
if (!parentPort) process.disconnect()
