import { modelPath } from '@aphrodite/demo-model'
import { EngineCore, resolveSamplingParams } from '@aphrodite/engine'
import { type CudaDevice, createCudaDevice } from '@aphrodite/kernels-cuda'
import { unquantized } from '@aphrodite/layers'
import { LLM } from '@aphrodite/llm'
import { openCheckpoint, readConfig } from '@aphrodite/loader'
import { ModelRegistry } from '@aphrodite/models'
import { Arena, singleRank } from '@aphrodite/tensor'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { describeOnCuda } from './on-cuda.ts'

/** What the driver hands out and takes back at a time, a few times over. */
const GRANULARITY = 8 << 20

describeOnCuda('memory of a GPU', () => {
  /** Stays open, so that the driver's own memory is there before and after. */
  let watch: CudaDevice
  beforeAll(() => {
    watch = createCudaDevice()
  })
  afterAll(() => watch?.close())
  const free = (): number => watch.memory().free

  test('10,000 steps take no more of the device than 1,000, and no more of the host', { timeout: 300_000 }, async () => {
    const engine = await openEngine()
    try {
      await engine.run(1000)
      const [device, host] = [free(), process.memoryUsage().rss]
      await engine.run(9000)
      expect(device - free()).toBeLessThanOrEqual(GRANULARITY)
      expect(process.memoryUsage().rss - host).toBeLessThan(48 << 20)
    } finally {
      engine.close()
    }
  })

  test('an engine that is closed has given back everything', async () => {
    const once = async () => {
      const engine = await openEngine()
      const taken = free()
      await engine.run(200)
      engine.close()
      return taken
    }
    await once() // the driver loads kernels when they are first used, and keeps them
    const before = free()
    const during = await once()
    expect(before - during).toBeGreaterThan(16 << 20)
    expect(before - free()).toBeLessThanOrEqual(GRANULARITY)
  })

  test('two engines in one process share a GPU', async () => {
    const ask = { messages: [{ role: 'user', content: 'What is 31 + 65?' }] }
    const once = async () => {
      const options = { model: modelPath, device: 'cuda', dtype: 'float32', maxModelLen: 512, maxNumBatchedTokens: 512 } as const
      const engines = await Promise.all([0.05, 0.1].map((gpuMemoryUtilization) => LLM.create({ ...options, gpuMemoryUtilization })))
      try {
        const answers = await Promise.all(
          engines.flatMap((llm) => Array.from({ length: 8 }, () => llm.generate(ask, { temperature: 0, maxTokens: 24 }))),
        )
        expect(answers.map(([a]) => a!.outputs[0]!.text)).toEqual(new Array(16).fill('31 + 65 = 96.'))
        const { total } = watch.memory()
        for (const [i, { info }] of engines.entries()) {
          const taken = info.ledger.weights + info.ledger.workspace + info.ledger.cache
          expect(taken).toBeLessThanOrEqual(total * [0.05, 0.1][i]!)
        }
      } finally {
        await Promise.all(engines.map((llm) => llm.close()))
      }
    }
    await once()
    const before = free()
    await once()
    expect(before - free()).toBeLessThanOrEqual(GRANULARITY)
  })
})

/** The demo model with a small cache; `run` makes about so many steps of requests of every length, with prefixes in common. */
async function openEngine() {
  const device = createCudaDevice()
  const arena = new Arena(device, 1 << 20)
  const model = await ModelRegistry.create(readConfig(modelPath).json)
  model.materialize({ device, arena, tp: singleRank, dtype: 'bf16', quantization: unquantized, maxModelLen: 512 })
  const checkpoint = openCheckpoint(modelPath)
  model.loadWeights(checkpoint)
  checkpoint.close()
  const sizes = { maxModelLen: 512, maxNumSeqs: 32, maxNumBatchedTokens: 128, kvCacheBytes: 16 << 20 }
  const core = new EngineCore({ model, device, cacheDtype: 'bf16', ...sizes })
  let requests = 0
  return {
    async run(steps: number): Promise<void> {
      for (let step = 0; step < steps || core.hasWork; step++) {
        while (step < steps && core.stats().running + core.stats().waiting < 32) {
          const n = requests++
          const promptTokenIds = Array.from({ length: 4 + ((n * 13) % 90) }, (_, i) => 3 + ((i * 7 + (n % 5) * 31) % 1000))
          const params = resolveSamplingParams({ temperature: n % 2, maxTokens: 5 + ((n * 29) % 60), ignoreEos: true, seed: n })
          core.add({ id: String(n), promptTokenIds, params })
        }
        await core.step()
      }
      core.assertBalanced()
    },
    close(): void {
      core.close()
      arena.release()
      device.close()
    },
  }
}
