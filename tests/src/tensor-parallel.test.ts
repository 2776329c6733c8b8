import { createCpuDevice } from '@aphrodite/kernels-cpu'
import { LLM } from '@aphrodite/llm'
import { ModelRegistry } from '@aphrodite/models'
import type { Device } from '@aphrodite/tensor'
import { createReferenceDevice, lockstep } from '@aphrodite/testing'
import { Runner } from '@aphrodite/testing/runner'
import { describe, expect, test } from 'vitest'
import { FIXTURES, readFixture, relativeError } from './fixture-cases.ts'

/** Any number of ranks up to the heads can share a model: sizes that do not divide are shared unevenly. */
const shareable = (size: number): string[] =>
  FIXTURES.filter((name) => {
    const { config, weights } = readFixture(name)
    weights.close()
    return Number(config['num_attention_heads']) >= size
  })

/** Every row of logits of a prompt, on each of `size` ranks. */
async function logitsOf(name: string, size: number, open: () => Device): Promise<Float32Array[][]> {
  const { config, weights, prompts } = readFixture(name)
  const models = await Promise.all(Array.from({ length: size }, () => ModelRegistry.create(config)))
  const devices = Array.from({ length: size }, open)
  const runners = new Map<number, Runner>()
  try {
    return lockstep(size, (tp) => {
      const runner = runners.get(tp.rank) ?? new Runner(models[tp.rank]!, weights, devices[tp.rank]!, { dtype: 'f32', tp })
      runners.set(tp.rank, runner)
      return runner.logits(prompts[0]!.prompt)
    })
  } finally {
    for (const runner of runners.values()) runner.close()
    for (const device of devices) device.close()
    weights.close()
  }
}

/** A rank's program runs again for each of its collectives, so one short prompt has to do; the model is whole. */
describe.each<[number, string, () => Device]>([
  [2, 'reference', createReferenceDevice],
  [2, 'cpu', () => createCpuDevice({ threads: 1, pin: false })],
  [3, 'cpu', () => createCpuDevice({ threads: 1, pin: false })],
  [4, 'cpu', () => createCpuDevice({ threads: 1, pin: false })],
])('on %i ranks in lockstep, %s', (size, _, open) => {
  test.each(shareable(size))('%s gives the logits of one rank, and of Hugging Face', async (name) => {
    const alone = (await logitsOf(name, 1, open))[0]!
    const { weights, prompts } = readFixture(name)
    weights.close()
    for (const rows of await logitsOf(name, size, open)) {
      expect(rows.length).toBe(alone.length)
      const worst = rows.reduce((most, row, i) => Math.max(most, relativeError(row, alone[i]!)), 0)
      expect(worst).toBeLessThanOrEqual(1e-5)
      for (const [position, expected] of prompts[0]!.logits) expect(relativeError(rows[position]!, expected)).toBeLessThanOrEqual(1e-4)
    }
  })
})

/** The same with processes, as `--tensor-parallel-size` starts them; one of each kind of layer, and shares that are not equal. */
describe('on ranks that are processes', () => {
  test.each([
    ['hf/llama', 2],
    ['hf/gemma3', 2],
    ['hf/phi3', 2],
    ['hf/qwen2', 3],
    ['variants/llama-odd', 2],
  ])('%s on %i ranks gives the logits and the tokens of Hugging Face', { timeout: 60_000 }, async (name, tensorParallelSize) => {
    const { directory, prompts, weights } = readFixture(name)
    weights.close()
    const llm = await LLM.create({
      model: directory,
      device: 'cpu',
      dtype: 'float32',
      threads: 1,
      tensorParallelSize,
      skipTokenizerInit: true,
    })
    try {
      expect(llm.info.tensorParallelSize).toBe(tensorParallelSize)
      for (const { prompt, logits, greedy, gap } of prompts.slice(0, 2)) {
        const { shape, data } = await llm.logits(prompt)
        for (const [position, expected] of logits)
          expect(relativeError(data.subarray(position * shape[1], (position + 1) * shape[1]), expected)).toBeLessThanOrEqual(1e-4)
        const unsure = gap.findIndex((g) => g < 1e-3)
        const sure = unsure < 0 ? greedy.length : unsure
        const [answer] = await llm.generate({ promptTokenIds: prompt }, { temperature: 0, maxTokens: greedy.length, ignoreEos: true })
        expect(answer!.outputs[0]!.tokenIds.slice(0, sure)).toEqual(greedy.slice(0, sure))
      }
    } finally {
      await llm.close()
    }
  })
})
