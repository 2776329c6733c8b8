// Where the time of a step goes, op by op: decode of one sequence, of eight, at a long context, and a prompt, with dummy weights. Each
// op is timed from JavaScript, beside the time that its reads take at the bandwidth of this run, or its multiplications at the peak.
// The last line of each kind is the step itself, as the engine runs it (decode steps are replayed, so no op is seen there). JSON lines.
//
//   node benchmarks/dist/step-profile.js [--model DIR] [--threads 2] [--steps 24] [--context 8192] [--only decode,crowd,prefill,context]
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { EngineCore, resolveSamplingParams } from '@aphrodite/engine'
import { createCpuDevice, measurePeak, measureReadBandwidth } from '@aphrodite/kernels-cpu'
import { unquantized } from '@aphrodite/layers'
import { dummyTensors, readConfig } from '@aphrodite/loader'
import { ModelRegistry } from '@aphrodite/models'
import { Arena, type Device, type Kernels, type PackedWeight, singleRank, type Tensor } from '@aphrodite/tensor'
import { median, print, round } from './statistics.ts'

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: fileURLToPath(new URL('../shapes/llama-3.2-1b', import.meta.url)) },
    threads: { type: 'string', default: '2' },
    steps: { type: 'string', default: '24' },
    context: { type: 'string', default: '8192' },
    only: { type: 'string', default: 'decode,crowd,prefill,context' },
  },
})
const context = Number(values.context)
const wants = new Set(values.only.split(','))
const cpu = createCpuDevice({ threads: Number(values.threads) })

interface Op {
  ms: number
  calls: number
  bytes: number
  operations: number
}
let ops = new Map<string, Op>()
let timing = false

/** The device with a clock around every op. What is captured could not be timed, so it captures only while nothing is. */
function timed(device: Device): Device {
  const kernels = new Proxy(device.kernels, {
    get(target, name: keyof Kernels) {
      const f = target[name] as (...args: unknown[]) => unknown
      return (...args: unknown[]) => {
        if (!timing) return f(...args)
        const start = performance.now()
        f(...args)
        const ms = performance.now() - start
        const { label, bytes, operations } = describe(name, args)
        const op = ops.get(label) ?? { ms: 0, calls: 0, bytes: 0, operations: 0 }
        ops.set(label, { ms: op.ms + ms, calls: op.calls + 1, bytes: op.bytes + bytes, operations: op.operations + operations })
      }
    },
  })
  return new Proxy(device, {
    get(target, name) {
      if (name === 'kernels') return kernels
      if (name === 'capture' && timing) return undefined
      const value = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

function describe(name: string, args: readonly unknown[]): { label: string; bytes: number; operations: number } {
  if (name !== 'linear') return { label: name, bytes: 0, operations: 0 }
  const [, x, { outFeatures, inFeatures, format }] = args as [Tensor, Tensor, PackedWeight]
  const bytes = cpu.packedBytes(format, outFeatures, inFeatures)
  return { label: `linear ${outFeatures} x ${inFeatures}`, bytes, operations: 2 * x.shape[0]! * outFeatures * inFeatures }
}

const arena = new Arena(cpu)
const { json, path } = readConfig(values.model)
const model = await ModelRegistry.create(json, path)
const slots = model.materialize({
  device: cpu,
  arena,
  tp: singleRank,
  dtype: 'bf16',
  quantization: unquantized,
  maxModelLen: context + 512,
}).slots
model.loadWeights(
  dummyTensors(
    [...slots].map(([name, [slot]]) => ({ name, shape: slot!.shape })),
    'bf16',
  ),
)
const limits = () => {
  const slabs = arena.slabs.filter(({ bytes }) => bytes >= 1 << 20)
  const seconds = slabs.reduce((sum, { address, bytes }) => sum + bytes / measureReadBandwidth(cpu, address, bytes), 0)
  return { read: slabs.reduce((sum, { bytes }) => sum + bytes, 0) / seconds, flops: measurePeak(cpu, 'bf16') }
}
print({ benchmark: 'step-profile', device: cpu.description, cpu: cpus()[0]?.model.trim(), node: process.version, context })

const params = resolveSamplingParams({ temperature: 0, ignoreEos: true, maxTokens: 4096 })
let seed = 1
const prompt = (length: number): number[] => {
  seed++
  return Array.from({ length }, (_, i) => (i * 7919 + seed * 104729) % model.vocabSize)
}

/** Steps of a batch that decodes, or whole prompts; first with the clock, then as the engine runs them. */
async function profile(kind: string, sequences: number, length: number, steps: number): Promise<void> {
  const run = async (): Promise<{ ms: number; read: number; flops: number }> => {
    const core = new EngineCore({
      model,
      device: timed(cpu),
      cacheDtype: 'bf16',
      maxModelLen: context + 512,
      maxNumSeqs: 16,
      enablePrefixCaching: false,
      kvCacheBytes: 512 << 20,
    })
    const add = (i: number) => core.add({ id: `${kind}${i}`, promptTokenIds: prompt(length), params })
    const times: number[] = []
    const before = limits()
    if (kind === 'prefill') {
      for (let i = -1; i < steps; i++) {
        add(i)
        if (i === 0) ops = new Map()
        const start = performance.now()
        await core.step()
        if (i >= 0) times.push(performance.now() - start)
        core.abort(`${kind}${i}`)
        await core.step()
      }
    } else {
      for (let i = 0; i < sequences; i++) add(i)
      while (core.stats().generatedTokens < sequences * 4) await core.step()
      ops = new Map()
      for (let i = 0; i < steps; i++) {
        const start = performance.now()
        await core.step()
        times.push(performance.now() - start)
      }
    }
    const after = limits()
    core.close()
    return { ms: median(times), read: (before.read + after.read) / 2, flops: (before.flops + after.flops) / 2 }
  }
  timing = true
  const clocked = await run()
  let sum = 0
  for (const [op, { ms, calls, bytes, operations }] of [...ops].sort(([, a], [, b]) => b.ms - a.ms)) {
    const ideal = Math.max(bytes / clocked.read, operations / clocked.flops) * 1000
    sum += ms / steps
    print({
      kind,
      op,
      calls: round(calls / steps, 1),
      ms: round(ms / steps),
      ...(ideal > 0 && { idealMs: round(ideal / steps), ofIdeal: round(ideal / ms) }),
    })
  }
  timing = false
  const whole = await run()
  print({
    kind,
    step: true,
    ms: round(whole.ms, 2),
    clockedMs: round(clocked.ms, 2),
    opsMs: round(sum, 2),
    readGBs: [clocked, whole].map(({ read }) => round(read / 1e9, 1)),
    peakTFLOPs: [clocked, whole].map(({ flops }) => round(flops / 1e12)),
  })
}

const steps = Number(values.steps)
if (wants.has('decode')) await profile('decode', 1, 128, steps)
if (wants.has('crowd')) await profile('crowd', 8, 128, steps)
if (wants.has('prefill')) await profile('prefill', 1, 512, Math.ceil(steps / 6))
if (wants.has('context')) await profile('context', 1, context, steps)
arena.release()
cpu.close()
