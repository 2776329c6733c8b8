import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { modelPath } from '@aphrodite/demo-model'
import { LLM, type LLMOptions } from '@aphrodite/llm'
import { createServer, listen } from '@aphrodite/server'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { relativeError } from './fixture-cases.ts'
import { leftovers, lives, ranksOf, start } from './rank-programs.ts'

/** Llama, but that it throws on rank 1 when a prompt is long. */
const PLUGIN = `
import { ModelRegistry } from '@aphrodite/models'
import { LlamaForCausalLM } from '@aphrodite/models/llama'
import { readLlamaConfig } from '@aphrodite/models/llama-config'
class Failing extends LlamaForCausalLM {
  static readConfig = (c) => readLlamaConfig(c)
  #env
  materialize(env) {
    this.#env = env
    return super.materialize(env)
  }
  forward(step) {
    const { device, tp } = this.#env
    if (tp.rank === 1 && step.inputIds.device === device && step.inputIds.size >= 77) throw new Error('no luck today')
    return super.forward(step)
  }
}
ModelRegistry.registerModel('LlamaForCausalLM', Failing)
`

const OPTIONS: LLMOptions = { model: modelPath, device: 'cpu', dtype: 'float32', kvCacheBytes: 32 << 20, threads: 1, pinThreads: false }
const QUESTION = { messages: [{ role: 'user', content: 'What is 31 + 65?' }] }
const ENDLESS = { temperature: 1, ignoreEos: true, maxTokens: 5000 }

let folder: string
beforeAll(() => {
  folder = mkdtempSync(fileURLToPath(new URL('../.snippet-ranks-', import.meta.url))) // where the packages of the workspace are found
  writeFileSync(join(folder, 'plugin.mjs'), PLUGIN)
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const open: LLM[] = []
let ranks: number[] = []
async function create(tensorParallelSize: number, more: Partial<LLMOptions> = {}): Promise<LLM> {
  const llm = await LLM.create({ ...OPTIONS, tensorParallelSize, ...more })
  open.push(llm)
  ranks = ranksOf(process.pid)
  expect(ranks).toHaveLength(tensorParallelSize - 1)
  return llm
}
afterEach(async () => {
  for (const llm of open.splice(0)) await llm.close()
  expect(ranks.filter(lives)).toEqual([])
  expect(leftovers()).toEqual([])
})

describe('two ranks', () => {
  test('give the logits and the text of one', async () => {
    const one = await create(1)
    const ids = one.tokenize(QUESTION)
    const [logits, alone] = [await one.logits(ids), await one.generate(QUESTION, { temperature: 0, maxTokens: 20 })]
    const two = await create(2)
    const shared = await two.logits(ids)
    expect(relativeError(shared.data, logits.data)).toBeLessThan(1e-5)
    // Many at a time, some of which leave early, and chance: all ranks have to draw the same.
    const params = [{ temperature: 0, maxTokens: 20 }, { temperature: 1, n: 3, maxTokens: 30 }, ENDLESS]
    const running = params.map(async (p, i) => {
      if (i < 2) return two.generate(QUESTION, p)
      for await (const { tokenIds } of two.stream(QUESTION, p)) if (tokenIds.length > 0) break
      return two.generate(QUESTION, params[0]!)
    })
    for (const [i, result] of (await Promise.all(running)).entries())
      if (i !== 1) expect(result[0]!.outputs[0]!.text).toBe(alone[0]!.outputs[0]!.text)
    expect(two.info.tensorParallelSize).toBe(2)
    await two.resetPrefixCache()
    expect((await two.generate(QUESTION, params[0]!))[0]!.cachedTokens).toBe(0)
  })

  test('cannot share what does not divide, and say so', async () => {
    await expect(LLM.create({ ...OPTIONS, tensorParallelSize: 2, maxModelLen: 10 ** 6 })).rejects.toThrow(/maxModelLen is 1000000/)
    ranks = ranksOf(process.pid)
  })
})

describe('a rank that ends, stops or fails', () => {
  test('ends its requests with its name, and the server answers 503 with the reason', async () => {
    const llm = await create(3)
    const app = createServer(llm, { servedModelNames: ['demo'] })
    try {
      const url = await listen(app, { port: 0 })
      const ask = () =>
        fetch(`${url}/v1/completions`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ model: 'demo', prompt: 'Once', max_tokens: 1900, ignore_eos: true }),
        })
      const pending = [ask(), ask(), ask()]
      await new Promise((resolve) => setTimeout(resolve, 300))
      expect((await fetch(`${url}/health`)).status).toBe(200)
      const killed = performance.now()
      process.kill(ranks[0]!, 'SIGKILL')
      for (const answer of await Promise.all(pending)) {
        expect(answer.status).toBe(503)
        expect(await answer.json()).toMatchObject({
          error: { code: 'rank_failed', message: expect.stringMatching(/rank [12] /) as string },
        })
      }
      expect(performance.now() - killed).toBeLessThan(5000)
      for (const answer of [await ask(), await fetch(`${url}/health`)]) {
        expect(answer.status).toBe(503)
        expect(await answer.text()).toMatch(/The engine has stopped: rank [12] /)
      }
      await expect.poll(() => ranks.filter(lives), { timeout: 5000 }).toEqual([])
    } finally {
      await app.close()
    }
  })

  test.each([true, false])('one that is stopped is named (under load: %s)', async (load) => {
    const llm = await create(2, { rankTimeout: 2 })
    const running = load ? llm.generate(QUESTION, ENDLESS) : undefined
    await new Promise((resolve) => setTimeout(resolve, 200))
    const stopped = performance.now()
    process.kill(ranks[0]!, 'SIGSTOP')
    const failure = { code: 'RANK_FAILED', message: expect.stringMatching(/rank 1/) as string }
    await expect(running ?? llm.generate(QUESTION, ENDLESS)).rejects.toMatchObject(failure)
    expect(performance.now() - stopped).toBeLessThan(6000)
    await expect(llm.generate(QUESTION)).rejects.toMatchObject(failure)
    await expect(llm.stats()).rejects.toMatchObject(failure)
  })

  test('an error in a step of one is the reason on all', async () => {
    const llm = await create(3, { plugins: [join(folder, 'plugin.mjs')] })
    const before = await llm.generate(QUESTION, { temperature: 0, maxTokens: 12 })
    expect(before[0]!.outputs[0]!.text).toMatch(/^31 \+ 65 = 96/)
    const running = llm.generate(QUESTION, ENDLESS)
    running.catch(() => {})
    const message = 'rank 1 failed: no luck today'
    const promptTokenIds = Array.from({ length: 77 }, (_, i) => i + 10)
    await expect(llm.generate({ promptTokenIds }, { maxTokens: 1 })).rejects.toMatchObject({ code: 'RANK_FAILED', message })
    await expect(running).rejects.toMatchObject({ code: 'RANK_FAILED', message })
    await expect(llm.generate(QUESTION)).rejects.toMatchObject({ message })
    await expect.poll(() => ranks.filter(lives), { timeout: 5000 }).toEqual([])
  })

  test('one that cannot start is named at once, and nobody is left', async () => {
    writeFileSync(join(folder, 'late.mjs'), `if (process.argv[1].includes('follower')) throw new Error('not here')\n${PLUGIN}`)
    const starting = LLM.create({ ...OPTIONS, tensorParallelSize: 2, plugins: [join(folder, 'late.mjs')] })
    await expect(starting).rejects.toMatchObject({ message: expect.stringMatching(/rank 1 failed: .*not here/s) as string })
    ranks = ranksOf(process.pid)
  })

  test('where rank 0 is killed the others leave', async () => {
    const script = `
      import { LLM } from '@aphrodite/llm'
      const llm = await LLM.create({ ...${JSON.stringify(OPTIONS)}, tensorParallelSize: 3 })
      console.log('ready')
      await llm.generate('Once', ${JSON.stringify(ENDLESS)})
    `
    writeFileSync(join(folder, 'program.mjs'), script)
    const program = start(process.execPath, [join(folder, 'program.mjs')])
    await expect.poll(program.output, { timeout: 20_000 }).toContain('ready')
    ranks = ranksOf(program.child.pid!)
    expect(ranks).toHaveLength(2)
    program.child.kill('SIGKILL')
    await program.ended
    await expect.poll(() => ranks.filter(lives), { timeout: 8000 }).toEqual([])
  })
})
