// What JavaScript costs in a decode step on an asynchronous device: the time between one step's enqueueing and the next one's
// where the device does nothing and its results are there at once. `step`: the engine alone; `served`: with its outputs sent to a
// front in another thread, as in the server. On a GPU all of it happens while the device computes.
//
//   node benchmarks/dist/engine-host-time.js [--steps 2000] [--sequences 1,16,64,256] [--context 1000] [--sampled]
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { isMainThread, MessageChannel, type MessagePort, Worker, workerData } from 'node:worker_threads'
import { connectEngine, EngineCore, type EngineRequest, resolveSamplingParams, serveEngine } from '@aphrodite/engine'
import type { Device, Kernels, Tensor } from '@aphrodite/tensor'
import { NoModel } from './no-model.ts'

const VOCAB = 151_936

/** Gives out addresses and computes nothing; every token it draws is 0. `onRead` is called once a step. */
function idleDevice(onRead: () => void): Device {
  let cursor = 4096
  const nothing = (): void => {}
  const zeros = (src: Tensor): Int32Array | Float32Array => (src.dtype === 'i32' ? new Int32Array(src.size) : new Float32Array(src.size))
  return {
    kind: 'reference',
    description: 'idle',
    kernels: new Proxy({}, { get: () => nothing }) as Kernels,
    supports: () => true,
    asynchronous: true,
    allocate(bytes) {
      const address = cursor
      cursor += Math.ceil(bytes / 256) * 256
      return address
    },
    release: nothing,
    memory: () => ({ total: 2 ** 39, free: 2 ** 39 }),
    upload: nothing,
    download: zeros,
    read(src) {
      onRead()
      return { wait: () => Promise.resolve(zeros(src)) }
    },
    packedBytes: (_, outFeatures, inFeatures) => outFeatures * inFeatures * 2,
    pack: nothing,
    unpack: () => new Float32Array(0),
    pageBytes: () => 2 ** 20,
    capture(enqueue) {
      enqueue()
      return { replay: nothing, release: nothing }
    },
    synchronize: () => Promise.resolve(),
    close: nothing,
  }
}

function requests(count: number, context: number, sampled: boolean): EngineRequest[] {
  const params = resolveSamplingParams({ ignoreEos: true, ...(sampled ? { temperature: 0.8, topP: 0.95, topK: 50 } : { temperature: 0 }) })
  return Array.from({ length: count }, (_, i) => ({
    id: `request-${i}`,
    promptTokenIds: Array.from({ length: context }, (_, t) => (t * 31 + i) % VOCAB),
    params,
  }))
}

/** A front that reads everything. */
async function front(port: MessagePort, all: readonly EngineRequest[]): Promise<void> {
  const engine = await connectEngine(port)
  const read = async (request: EngineRequest): Promise<void> => {
    for await (const _ of engine.submit(request));
  }
  await Promise.all(all.map(read)).catch(() => {})
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      steps: { type: 'string', default: '2000' },
      sequences: { type: 'string', default: '1,16,64,256' },
      context: { type: 'string', default: '1000' },
      sampled: { type: 'boolean', default: false },
    },
  })
  const steps = Number(values.steps)
  const context = Number(values.context)
  const print = (line: object): void => console.log(JSON.stringify(line))
  print({ benchmark: 'engine-host-time', cpu: cpus()[0]?.model.trim(), node: process.version, steps, context, sampled: values.sampled })
  for (const count of values.sequences.split(',').map(Number)) {
    for (const way of ['step', 'served']) {
      const all = requests(count, context, values.sampled)
      let reads: number[] = []
      const core = new EngineCore({
        model: new NoModel(VOCAB),
        device: idleDevice(() => void reads.push(performance.now())),
        maxModelLen: 32768,
        maxNumBatchedTokens: 8192,
      })
      // The first steps are compiled on the way.
      const warm = 600
      const decoding = (): boolean => core.stats().generatedTokens >= warm * count && core.stats().waiting === 0
      if (way === 'step') {
        for (const request of all) core.add(request)
        while (!decoding()) await core.step()
        reads = []
        while (reads.length <= steps) await core.step()
      } else {
        const { port1, port2 } = new MessageChannel()
        const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { port: port2, all }, transferList: [port2] })
        void serveEngine(port1, core)
        const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 20))
        while (!decoding()) await turn()
        reads = []
        while (reads.length <= steps) await turn()
        await worker.terminate()
        port1.close()
      }
      const micros = reads.slice(1, steps + 1).map((t, i) => (t - reads[i]!) * 1000)
      micros.sort((a, b) => a - b)
      const at = (fraction: number): number => Math.round(micros[Math.floor(micros.length * fraction)]!)
      print({ way, sequences: count, microsecondsPerStep: { median: at(0.5), p90: at(0.9), p99: at(0.99) } })
      core.close()
    }
  }
  process.exit(0)
}

if (isMainThread) await main()
else await front((workerData as { port: MessagePort }).port, (workerData as { all: EngineRequest[] }).all)
