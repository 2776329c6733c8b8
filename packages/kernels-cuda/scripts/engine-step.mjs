// What a decode step takes through the engine: wall time, the part of it in which JavaScript does not wait, and what captures cost.
//   node packages/kernels-cuda/scripts/engine-step.mjs [--sequences 1,64,256] [--steps 150] [--context 128] [--load] [--prompts 128]
// --load: 256 requests at once instead, of 100 to 1,024 tokens in and out. --prompts: prompts of these lengths instead, one after the other.
// Random weights of the shape of Qwen3-0.6B in bf16.
import { parseArgs } from 'node:util'
import { modelPath } from '../../demo-model/dist/index.js'
import { EngineCore, resolveSamplingParams } from '../../engine/dist/index.js'
import { unquantized } from '../../layers/dist/index.js'
import { dummyTensors, openCheckpoint, readConfig } from '../../loader/dist/index.js'
import { ModelRegistry } from '../../models/dist/index.js'
import { Arena, singleRank } from '../../tensor/dist/index.js'
import { createCudaDevice } from '../dist/index.js'

const { values } = parseArgs({
  options: {
    sequences: { type: 'string', default: '1,64,256' },
    steps: { type: 'string', default: '150' },
    context: { type: 'string', default: '128' },
    load: { type: 'boolean', default: false },
    prompts: { type: 'string', default: '' },
  },
})
const QWEN3_06B = {
  architectures: ['Qwen3ForCausalLM'],
  model_type: 'qwen3',
  vocab_size: 151936,
  hidden_size: 1024,
  intermediate_size: 3072,
  num_hidden_layers: 28,
  num_attention_heads: 16,
  num_key_value_heads: 8,
  head_dim: 128,
  hidden_act: 'silu',
  max_position_embeddings: 40960,
  rms_norm_eps: 1e-6,
  rope_theta: 1e6,
  tie_word_embeddings: true,
}
const device = createCudaDevice()
console.log(device.description)
let waited = 0
let captures = []
/** Milliseconds in calls of the device, this step. */
let inCalls = {}
const clocked = (name, call) => {
  const start = performance.now()
  try {
    return call()
  } finally {
    inCalls[name] = (inCalls[name] ?? 0) + performance.now() - start
  }
}
const timed = new Proxy(device, {
  get(target, name) {
    if (name === 'read')
      return (src) => {
        const reading = clocked('read', () => target.read(src))
        return {
          async wait() {
            const start = performance.now()
            const result = await reading.wait()
            waited += performance.now() - start
            return result
          },
        }
      }
    if (name === 'capture')
      return (enqueue) => {
        const start = performance.now()
        const graph = target.capture(enqueue)
        captures.push(performance.now() - start)
        return { replay: () => clocked('replay', () => graph.replay()), release: () => graph.release() }
      }
    if (name === 'upload') return (...args) => clocked('upload', () => target.upload(...args))
    const value = Reflect.get(target, name, target)
    return typeof value === 'function' ? value.bind(target) : value
  },
})

async function load(config, dtype, weights) {
  const arena = new Arena(timed)
  const model = await ModelRegistry.create(config, 'config.json')
  const expected = model.materialize({ device: timed, arena, tp: singleRank, dtype, quantization: unquantized })
  if (weights) model.loadWeights(weights)
  else
    expected.fill(
      dummyTensors(
        [...expected.slots].map(([name, slots]) => ({ name, shape: slots[0].shape })),
        dtype,
      ),
    )
  return { model, arena }
}

const median = (xs) => xs.toSorted((a, b) => a - b)[xs.length >> 1]
const steps = Number(values.steps)
const context = Number(values.context)

// Whether the tokens are the same: the demo model, greedy and sampled.
{
  const checkpoint = openCheckpoint(modelPath)
  const { model, arena } = await load(readConfig(modelPath).json, 'f32', checkpoint)
  const runs = []
  for (const asyncScheduling of [false, true]) {
    const core = new EngineCore({ model, device: timed, cacheDtype: 'f32', kvCacheBytes: 256 << 20, maxModelLen: 512, asyncScheduling })
    const answers = new Map()
    for (let i = 0; i < 40; i++) {
      const params = {
        maxTokens: 20 + i,
        ...(i % 2 ? { temperature: 0 } : { temperature: 0.8, seed: i }),
        ...(i % 5 ? {} : { repetitionPenalty: 1.2 }),
        ...(i % 7 ? {} : { logprobs: 2 }),
      }
      core.add({
        id: `r${i}`,
        promptTokenIds: Array.from({ length: 5 + i * 3 }, (_, t) => 3 + ((t * 37 + i * 11) % 1500)),
        params: resolveSamplingParams(params),
      })
    }
    const failures = []
    while (core.hasWork) {
      const events = await core.step()
      for (const o of events.outputs) answers.set(o.requestId, [...(answers.get(o.requestId) ?? []), ...o.tokenIds])
      failures.push(...events.failures)
    }
    core.assertBalanced()
    if (failures.length > 0) console.log('failures', failures[0])
    runs.push(answers)
    core.close()
  }
  let same = 0
  for (const [id, tokens] of runs[0]) if (JSON.stringify(tokens) === JSON.stringify(runs[1].get(id))) same++
  console.log(`${same} of ${runs[0].size} answers are the same with and without overlap`)
  checkpoint.close()
  arena.release()
}

const { model } = await load(QWEN3_06B, 'bf16')
if (values.prompts) {
  const core = new EngineCore({
    model,
    device: timed,
    cacheDtype: 'bf16',
    kvCacheBytes: 12e9,
    maxModelLen: 4096,
    maxNumBatchedTokens: 8192,
    enablePrefixCaching: false,
  })
  for (const length of values.prompts.split(',').map(Number)) {
    const walls = []
    const hosts = []
    captures = []
    for (let i = 0; i < steps; i++) {
      const promptTokenIds = Array.from({ length }, (_, t) => (t * 31 + i) % 1000)
      waited = 0
      const start = performance.now()
      core.add({ id: `p${length}-${i}`, promptTokenIds, params: resolveSamplingParams({ temperature: 0, maxTokens: 1, ignoreEos: true }) })
      while (core.hasWork) await core.step()
      const wall = performance.now() - start
      walls.push(wall)
      hosts.push(wall - waited)
    }
    console.log(
      `a prompt of ${length}: first ${walls[0].toFixed(2)} ms, median ${median(walls).toFixed(2)} ms, host ${median(hosts).toFixed(2)} ms; ${captures.length} captures`,
    )
  }
  core.close()
  device.close()
  process.exit(0)
}
if (values.load) {
  for (const [asyncScheduling, captureAtStart] of [
    [true, false],
    [true, true],
    [false, true],
  ]) {
    captures = []
    const free = device.memory().free
    const begun = performance.now()
    const core = new EngineCore({
      model,
      device: timed,
      cacheDtype: 'bf16',
      kvCacheBytes: 40e9,
      maxModelLen: 4096,
      maxNumBatchedTokens: 8192,
      asyncScheduling,
      captureAtStart,
    })
    const opened = performance.now() - begun
    const atStart = captures.length
    let state = 1
    const random = () => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0
      return 100 + ((state >>> 8) % 925)
    }
    let wanted = 0
    for (let i = 0; i < 256; i++) {
      const [inputs, outputs] = [random(), random()]
      wanted += outputs
      core.add({
        id: `r${i}`,
        promptTokenIds: Array.from({ length: inputs }, (_, t) => (t * 31 + i) % 1000),
        params: resolveSamplingParams({ temperature: 0.6, ignoreEos: true, maxTokens: outputs, seed: i }),
      })
    }
    waited = 0
    const start = performance.now()
    const hosts = []
    while (core.hasWork) {
      const before = performance.now() - waited
      const { failures } = await core.step()
      hosts.push(performance.now() - waited - before)
      if (failures.length > 0) throw new Error(failures[0].message)
    }
    const steps = hosts.length
    const wall = performance.now() - start
    const later = captures.slice(atStart)
    const sum = (xs) => xs.reduce((a, b) => a + b, 0)
    console.log(
      `overlap ${asyncScheduling}, captures at start ${captureAtStart}: opened in ${opened.toFixed(0)} ms with ${atStart} captures (${sum(captures.slice(0, atStart)).toFixed(0)} ms), ` +
        `${wanted} tokens at ${((wanted / wall) * 1000).toFixed(0)} a second, ${steps} steps of ${(wall / steps).toFixed(3)} ms, not waiting ${((wall - waited) / steps).toFixed(3)} ms of it (median ${median(hosts).toFixed(3)}, p99 ${hosts.toSorted((a, b) => a - b)[Math.floor(steps * 0.99)].toFixed(3)}); ` +
        `${later.length} captures on the way, ${sum(later).toFixed(0)} ms; memory taken ${((free - device.memory().free) / 1e9).toFixed(2)} GB`,
    )
    core.close()
  }
  device.close()
  process.exit(0)
}
for (const asyncScheduling of [false, true]) {
  for (const count of values.sequences.split(',').map(Number)) {
    captures = []
    const core = new EngineCore({
      model,
      device: timed,
      cacheDtype: 'bf16',
      kvCacheBytes: 12e9,
      maxModelLen: 4096,
      maxNumBatchedTokens: 8192,
      asyncScheduling,
    })
    for (let i = 0; i < count; i++)
      core.add({
        id: `r${i}`,
        promptTokenIds: Array.from({ length: context }, (_, t) => (t * 31 + i) % 1000),
        params: resolveSamplingParams({ temperature: 0, ignoreEos: true }),
      })
    for (let i = 0; i < 40; i++) await core.step()
    const walls = []
    const hosts = []
    const calls = { upload: [], replay: [], read: [] }
    for (let i = 0; i < steps; i++) {
      waited = 0
      inCalls = {}
      const start = performance.now()
      const { failures } = await core.step()
      for (const name of Object.keys(calls)) calls[name].push(inCalls[name] ?? 0)
      if (failures.length > 0) throw new Error(failures[0].message)
      const wall = performance.now() - start
      walls.push(wall)
      hosts.push(wall - waited)
    }
    const n = (x) => x.toFixed(3)
    console.log(
      `${asyncScheduling ? 'overlapping' : 'one by one '} ${String(count).padStart(3)} sequences: ${n(median(walls))} ms a step (p99 ${n(walls.toSorted((a, b) => a - b)[Math.floor(steps * 0.99)])}), host ${n(median(hosts))} ms (upload ${n(median(calls.upload))}, replay ${n(median(calls.replay))}, read ${n(median(calls.read))}); ${captures.length} captures, ${n(median([...captures, 0]))} ms each`,
    )
    core.close()
  }
}
device.close()
