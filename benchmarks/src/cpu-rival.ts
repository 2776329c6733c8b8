// What a busy process beside us costs: decode-shaped linear layers with one thread and with all, alone and beside a process that
// never sleeps. All threads should never be slower than one. JSON lines.
//
//   node benchmarks/dist/cpu-rival.js [--passes 15] [--rounds 4] [--layers 4] [--threads 0]
import { type ChildProcess, spawn } from 'node:child_process'
import { parseArgs } from 'node:util'
import { type CpuDevice, createCpuDevice } from '@aphrodite/kernels-cpu'
import { Arena } from '@aphrodite/tensor'

const { values } = parseArgs({
  options: {
    passes: { type: 'string', default: '15' },
    rounds: { type: 'string', default: '4' },
    layers: { type: 'string', default: '4' },
    threads: { type: 'string', default: '0' },
  },
})
const LAYER = [
  [3072, 2048],
  [2048, 2048],
  [16384, 2048],
  [2048, 8192],
] as const

/** A process that computes without end, on one core or wherever the system puts it. */
function startRival(core: number | undefined): ChildProcess {
  const command = ['sh', '-c', 'while :; do :; done']
  return core === undefined ? spawn(command[0]!, command.slice(1)) : spawn('taskset', ['-c', String(core), ...command])
}

function decode(device: CpuDevice): number[] {
  const arena = new Arena(device)
  const weights = Array.from({ length: Number(values.layers) }, () => LAYER.map(([n, k]) => arena.packed(n, k, 'bf16'))).flat()
  for (const w of weights) {
    const bytes = new Uint8Array(w.inFeatures * 2).fill(0x3c)
    device.pack(w, { bytes, dtype: 'bf16', shape: [w.outFeatures, w.inFeatures], strides: [0, 1] }, 0, 0)
  }
  const x = arena.empty([1, 8192], 'bf16')
  const out = arena.empty([1, 16384], 'bf16')
  const times: number[] = []
  for (let i = 0; i < Number(values.passes); i++) {
    const t = performance.now()
    for (const w of weights) device.kernels.linear(out.narrow(1, 0, w.outFeatures), x.narrow(1, 0, w.inFeatures), w)
    times.push(performance.now() - t)
  }
  arena.release()
  return times.slice(3) // the first ones see cold pages, and learn about the rival
}

const median = (xs: readonly number[]): number => xs.toSorted((a, b) => a - b)[xs.length >> 1]!
const round = (x: number): number => Number(x.toFixed(2))
const all = Number(values.threads)
const setups = [
  { name: '1 thread', threads: 1, pin: true },
  { name: '1 thread, unpinned', threads: 1, pin: false },
  { name: 'all threads', threads: all, pin: true },
  { name: 'all threads, unpinned', threads: all, pin: false },
]
for (const [beside, core] of [
  ['alone', -1],
  ['a rival anywhere', undefined],
  ['a rival on core 0', 0],
  ['a rival on core 1', 1],
] as const) {
  // Memory speed changes from second to second: the setups take turns.
  const times = setups.map((): number[] => [])
  for (let turn = 0; turn < Number(values.rounds); turn++) {
    for (const [i, { threads, pin }] of setups.entries()) {
      const rival = core === -1 ? undefined : startRival(core)
      const device = createCpuDevice({ threads, pin })
      times[i]!.push(...decode(device))
      device.close()
      rival?.kill('SIGKILL')
    }
  }
  for (const [i, { name }] of setups.entries()) {
    const ms = times[i]!
    const mean = ms.reduce((a, b) => a + b) / ms.length
    console.log(
      JSON.stringify({
        benchmark: 'cpu-rival',
        beside,
        setup: name,
        medianMs: round(median(ms)),
        meanMs: round(mean),
        worstMs: round(Math.max(...ms)),
      }),
    )
  }
}
