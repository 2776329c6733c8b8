// The whole pass on a GPU, workload by workload, each as a process of `aphrodite bench`: published shapes, random weights, bfloat16,
// with the read bandwidth and the peak that the same run measured. JSON lines; the last compares with the targets of the card.
//
//   node benchmarks/dist/gpu.js [--only 8b,1b,0.6b,32k,batch,prefill,throughput,startup] [--repeat 3]
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { print, round } from './statistics.ts'

interface Workload {
  readonly name: string
  readonly args: readonly string[]
  readonly figure: string
  /** The figure is attention's share of read bandwidth: what the step takes and reads beyond that of this workload, run before. */
  readonly beyond?: string
  /** By what the card's name contains: at most for times, at least for what ends in Of… or PerSecond. */
  readonly targets: Readonly<Record<string, number>>
}

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: '8b,1b,0.6b,32k,batch,prefill,throughput,startup' },
    repeat: { type: 'string', default: '3' },
  },
})
const repeat = ['--repeat', values.repeat]
const one = ['--input-len', '128', '--output-len', '256', '--batch-size', '1', ...repeat]
const span = ['--input-len', '100-1024', '--output-len', '100-1024']

const WORKLOADS: readonly Workload[] = [
  { name: '8b', args: ['latency', 'llama-3.1-8b', ...one], figure: 'msPerStep', targets: { H100: 5.4, H200: 4.1 } },
  { name: '1b', args: ['latency', 'llama-3.2-1b', ...one], figure: 'msPerStep', targets: { H100: 1, H200: 0.8 } },
  { name: '0.6b', args: ['latency', 'qwen3-0.6b', ...one], figure: 'msPerStep', targets: { H100: 0.7, H200: 0.62 } },
  {
    name: '32k',
    args: [
      'latency',
      'llama-3.1-8b',
      '--input-len',
      '32640',
      '--output-len',
      '128',
      '--batch-size',
      '1',
      '--max-model-len',
      '32768',
      ...repeat,
    ],
    figure: 'attentionOfBandwidth',
    beyond: '8b',
    targets: { H100: 0.8, H200: 0.75 },
  },
  {
    name: 'batch',
    args: ['latency', 'llama-3.1-8b', '--input-len', '1024', '--output-len', '64', '--batch-size', '64', '--repeat', '1'],
    figure: 'msPerStep',
    targets: { H200: 7 },
  },
  {
    name: 'prefill',
    args: ['prefill', 'llama-3.1-8b', '--input-len', '8192'],
    figure: 'prefillOfPeak',
    targets: { H100: 0.65, H200: 0.65 },
  },
  {
    name: 'throughput',
    args: ['throughput', 'qwen3-0.6b', '--num-prompts', '256', ...span, '--temperature', '0.6', '--capture-at-start', ...repeat],
    figure: 'outputTokensPerSecond',
    targets: { H200: 20_000 },
  },
  { name: 'startup', args: ['startup', 'llama-3.1-8b', '--repeat', '1'], figure: 'msFromProcessStart', targets: { H200: 8000 } },
]

const aphrodite = fileURLToPath(new URL('../../packages/cli/bin/aphrodite.js', import.meta.url))
const wanted = new Set(values.only.split(','))
const summary: Record<string, unknown> = {}
type Figures = Readonly<Record<string, number>>
const measured = new Map<string, Figures>()
for (const { name, args, figure, beyond, targets } of WORKLOADS) {
  if (!wanted.has(name) && !WORKLOADS.some((w) => w.beyond === name && wanted.has(w.name))) continue
  const command = [aphrodite, 'bench', ...args, '--device', 'cuda', '--json']
  const { stdout } = await promisify(execFile)(process.execPath, command, { maxBuffer: 1 << 24 })
  const result = JSON.parse(stdout) as { configuration: { device: string }; figures: Figures }
  print({ workload: name, command: args.join(' '), ...result })
  measured.set(name, result.figures)
  const value = beyond ? attentionOfBandwidth(result.figures, measured.get(beyond)!) : result.figures[figure]!
  const target = Object.entries(targets).find(([card]) => result.configuration.device.includes(card))?.[1]
  const more = /Of[A-Z]|PerSecond$/.test(figure)
  summary[name] = { figure, value: round(value), ...(target && { target, met: more ? value >= target : value <= target }) }
}
print({ summary: true, ...summary })

/** Steps of one model that differ in their context alone: what is read beyond the shorter one, a second, over what can be read. */
function attentionOfBandwidth(long: Figures, short: Figures): number {
  const gigabytes = long.GBPerStep! - short.GBPerStep!
  return gigabytes / ((long.msPerStep! - short.msPerStep!) / 1000) / long.readGBs!
}
