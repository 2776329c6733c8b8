// A rank of communicator.gpu.test.ts in a process of its own: argv has its rank, the number of ranks, NCCL's id and what to do.
// NCCL takes ranks for different hosts when they say so (NCCL_HOSTID), and lets them share a GPU then.
import { createCudaDevice, createNcclCommunicator } from '@aphrodite/kernels-cuda'
import { Arena } from '@aphrodite/tensor'

const [rank, size, id, task] = process.argv.slice(2)
const device = createCudaDevice()
const arena = new Arena(device)
const print = (value) => console.log(JSON.stringify(value))
const options = { rank: Number(rank), size: Number(size), id: Uint8Array.from(Buffer.from(id, 'base64')) }
const tp = await createNcclCommunicator(device, { ...options, timeoutMs: task === 'sums' ? 60_000 : 5_000 })
const numbers = (n) => Float32Array.from({ length: n }, (_, i) => (i % 23) + 100 * tp.rank)

if (task === 'sums') {
  for (const dtype of ['f32', 'bf16', 'f16']) {
    const wide = arena.empty([3, 40], dtype)
    const x = wide.narrow(1, 8, 20)
    const all = arena.empty([3, 20 * tp.size], dtype)
    device.upload(wide, new Float32Array(120).fill(-1))
    device.upload(x, numbers(60))
    const graph = device.capture(() => {
      tp.allGather(all, x)
      tp.allReduce(x)
    })
    graph.replay()
    print({ dtype, sum: [...device.download(wide)], all: [...device.download(all)] })
    graph.release()
  }
} else {
  // The other ranks go on, this one does not come to the second.
  const x = arena.empty([1, 64], 'f32')
  device.upload(x, numbers(64))
  tp.allReduce(x)
  device.download(x)
  if (tp.rank === 1) process.kill(process.pid, 'SIGKILL')
  const began = performance.now()
  try {
    tp.allReduce(x)
    await device.read(x).wait()
    print({ code: 'none' })
  } catch (e) {
    print({ code: e.code, message: e.message, seconds: (performance.now() - began) / 1000 })
  }
}
tp.close()
arena.release()
device.close()
