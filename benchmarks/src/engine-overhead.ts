// What JavaScript costs in a decode step: scheduler, batch, the model's own calls, sampling, outputs. Kernels do nothing here, so
// the whole step is overhead. Twice: with a model that calls no kernel (the engine alone), and with the layers of Llama-3.2-1B.
// JSON lines; the first is the configuration.
//
//   node benchmarks/dist/engine-overhead.js [--steps 400] [--sequences 1,8,64] [--context 1000]
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { EngineCore, resolveSamplingParams, type SamplingParams } from '@aphrodite/engine'
import { type CausalLM, unquantized } from '@aphrodite/layers'
import { ModelRegistry } from '@aphrodite/models'
import { Arena, type Device, type Kernels, singleRank, type Tensor } from '@aphrodite/tensor'
import { NoModel } from './no-model.ts'

const { values } = parseArgs({
  options: {
    steps: { type: 'string', default: '400' },
    sequences: { type: 'string', default: '1,8,64' },
    context: { type: 'string', default: '1000' },
  },
})
const steps = Number(values.steps)
const context = Number(values.context)
const VOCAB = 128256
const print = (line: object): void => console.log(JSON.stringify(line))

/** Gives out addresses and computes nothing; every token it draws is 0. */
function idleDevice(): Device {
  let cursor = 4096
  const nothing = (): void => {}
  const names = ['linear', 'embedding', 'gatherRows', 'rmsNorm', 'addRmsNorm', 'layerNorm', 'add', 'scale', 'softCap', 'activate']
  const more = ['activateAndMul', 'copy', 'fill', 'rotary', 'writeCache', 'pagedAttention', 'penalize', 'addSparse', 'sample', 'logProbs']
  return {
    kind: 'reference',
    description: 'idle',
    kernels: Object.fromEntries([...names, ...more].map((name) => [name, nothing])) as unknown as Kernels,
    supports: () => true,
    asynchronous: false,
    allocate(bytes) {
      const address = cursor
      cursor += Math.ceil(bytes / 256) * 256
      return address
    },
    release: nothing,
    memory: () => ({ total: 2 ** 36, free: 2 ** 36 }),
    upload: nothing,
    download: (src: Tensor) => (src.dtype === 'i32' ? new Int32Array(src.size) : new Float32Array(src.size)),
    read: (src: Tensor) => ({ wait: async () => (src.dtype === 'i32' ? new Int32Array(src.size) : new Float32Array(src.size)) }),
    packedBytes: (_, outFeatures, inFeatures) => outFeatures * inFeatures * 2,
    pack: nothing,
    unpack: () => new Float32Array(0),
    pageBytes: () => 64,
    synchronize: () => Promise.resolve(),
    close: nothing,
  }
}

const LLAMA_1B = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: VOCAB,
  hidden_size: 2048,
  intermediate_size: 8192,
  num_hidden_layers: 16,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  head_dim: 64,
  hidden_act: 'silu',
  max_position_embeddings: 131072,
  rms_norm_eps: 1e-5,
  rope_theta: 500000,
  tie_word_embeddings: true,
}

async function modelOf(name: string, device: Device): Promise<CausalLM> {
  if (name === 'none') return new NoModel(VOCAB)
  const model = await ModelRegistry.create(LLAMA_1B, 'config.json')
  model.materialize({ device, arena: new Arena(device), tp: singleRank, dtype: 'bf16', quantization: unquantized })
  model.loadWeights = () => {}
  return model
}

const SAMPLING: Record<string, Partial<SamplingParams>> = {
  greedy: { temperature: 0 },
  sampled: { temperature: 0.8, topP: 0.95, topK: 50, repetitionPenalty: 1.1 },
}

print({ benchmark: 'engine-overhead', cpu: cpus()[0]?.model, node: process.version, steps, context })
for (const name of ['none', 'llama-1b']) {
  for (const sampling of Object.keys(SAMPLING)) {
    for (const count of values.sequences.split(',').map(Number)) {
      const device = idleDevice()
      const core = new EngineCore({ model: await modelOf(name, device), device, maxModelLen: 8192, maxNumBatchedTokens: 8192 })
      for (let i = 0; i < count; i++) {
        const promptTokenIds = Array.from({ length: context }, (_, t) => (t * 31 + i) % VOCAB)
        core.add({ id: `r${i}`, promptTokenIds, params: resolveSamplingParams({ ...SAMPLING[sampling]!, ignoreEos: true }) })
      }
      while (core.stats().waiting > 0 || core.stats().generatedTokens < count * 2) await core.step()
      // The first steps are compiled on the way.
      for (let i = 0; i < 200; i++) await core.step()
      const micros: number[] = []
      for (let i = 0; i < steps; i++) {
        const start = performance.now()
        await core.step()
        micros.push((performance.now() - start) * 1000)
      }
      micros.sort((a, b) => a - b)
      const at = (fraction: number): number => Math.round(micros[Math.floor(micros.length * fraction)]!)
      print({ model: name, sampling, sequences: count, microsecondsPerStep: { median: at(0.5), p90: at(0.9), p99: at(0.99) } })
      core.close()
    }
  }
}
