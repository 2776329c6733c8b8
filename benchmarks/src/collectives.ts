// What ranks on the CPU pay to exchange: allReduce and allGather of f32, in shared memory and over loopback connections, beside a
// copy of the same bytes within one rank's memory. Each rank is a process with a thread on a core of its own; operations are
// captured, as in a decode step. Microseconds an operation on rank 0, the best and the median of the repetitions: ranks wait for
// each other, so whatever else uses a core is in the median. JSON lines; the first is the configuration.
//
//   node benchmarks/dist/collectives.js [--ranks 2] [--repeat 15] [--kinds shared,tcp]
import { fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { type CpuTransport, createCpuCommunicator, createCpuDevice, listenForRanks } from '@aphrodite/kernels-cpu'
import { Arena } from '@aphrodite/tensor'
import { median, print, round } from './statistics.ts'

/** A token of Llama-3.2-1B, of an 8B model, 16 tokens, a chunk of a prompt. */
const SHAPES = [
  [1, 2048],
  [1, 4096],
  [16, 2048],
  [512, 2048],
] as const
const BYTES_A_RUN = 1 << 24

interface RankTask {
  readonly rank: number
  readonly size: number
  readonly transport: CpuTransport
  readonly repeat: number
}

const task = process.env['COLLECTIVES_RANK']
if (task !== undefined) await measure(JSON.parse(task) as RankTask)
else await start()

async function start(): Promise<void> {
  const { values } = parseArgs({
    options: {
      ranks: { type: 'string', default: '2' },
      repeat: { type: 'string', default: '15' },
      kinds: { type: 'string', default: 'shared,tcp' },
    },
  })
  const size = Number(values.ranks)
  const repeat = Number(values.repeat)
  print({ benchmark: 'collectives', ranks: size, threads: 1, repeat, dtype: 'f32', processor: cpus()[0]?.model, cores: cpus().length })
  for (const kind of values.kinds.split(',')) {
    const transports = kind === 'tcp' ? connections(size) : sharedMemory(size)
    await Promise.all(
      transports.map(
        (transport, rank) =>
          new Promise<void>((resolve, reject) => {
            const told = JSON.stringify({ rank, size, transport, repeat } satisfies RankTask)
            const child = fork(fileURLToPath(import.meta.url), [], { env: { ...process.env, COLLECTIVES_RANK: told } })
            child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`rank ${rank} ended with status ${code}`))))
          }),
      ),
    )
  }
}

function sharedMemory(size: number): CpuTransport[] {
  const name = `benchmark-${randomBytes(8).toString('hex')}`
  return Array.from({ length: size }, () => ({ kind: 'shared', name }))
}

/** At ports that were free a moment ago. */
function connections(size: number): CpuTransport[] {
  const secret = randomBytes(16).toString('hex')
  const listeners = Array.from({ length: size }, () => listenForRanks('127.0.0.1:0'))
  const addresses = listeners.map(({ port }) => `127.0.0.1:${port}`)
  for (const l of listeners) l.close()
  return addresses.map((listen) => ({ kind: 'tcp', addresses, secret, listen }))
}

async function measure({ rank, size, transport, repeat }: RankTask): Promise<void> {
  const device = createCpuDevice({ threads: 1, share: { index: rank, of: size } })
  const arena = new Arena(device)
  const tp = await createCpuCommunicator(device, { rank, size, transport })
  for (const [rows, cols] of SHAPES) {
    const x = arena.empty([rows, cols], 'f32')
    const y = arena.empty([rows, cols], 'f32')
    const all = arena.empty([rows, cols * size], 'f32')
    const times = Math.max(4, Math.round(BYTES_A_RUN / (rows * cols * 4) / 8))
    const timed = (run: () => void) => {
      const graph = device.capture(() => {
        for (let i = 0; i < times; i++) run()
      })
      const each = Array.from({ length: repeat }, () => {
        tp.allReduce(x) // all begin together
        const began = performance.now()
        graph.replay()
        return ((performance.now() - began) * 1000) / times
      })
      graph.release()
      return { best: round(Math.min(...each)), median: round(median(each)) }
    }
    const allReduce = timed(() => tp.allReduce(x))
    const allGather = timed(() => tp.allGather(all, x))
    const copy = timed(() => device.kernels.copy(y, x))
    if (rank === 0) print({ summary: true, transport: transport.kind, shape: [rows, cols], allReduce, allGather, copy })
  }
  tp.close()
  arena.release()
  device.close()
}
