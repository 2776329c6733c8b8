import { copyFileSync, cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { modelPath } from '@aphrodite/demo-model'
import { LLM } from '@aphrodite/llm'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

describe('LLM', () => {
  let llm: LLM
  beforeAll(async () => {
    llm = await LLM.create({ device: 'cpu', model: modelPath, kvCacheBytes: 64 << 20, maxNumSeqs: 32 })
  })
  afterAll(() => llm.close())

  test('generate: one entry a prompt, in order, of every kind of prompt', async () => {
    const ids = llm.tokenize('Once upon a time')
    const results = await llm.generate(
      [{ prompt: 'Once upon a time' }, { promptTokenIds: ids }, { messages: [{ role: 'user', content: 'What is 2 + 3?' }] }],
      { temperature: 0, maxTokens: 24 },
    )
    expect(results.map((r) => r.promptTokenIds.length)).toEqual([ids.length, ids.length, expect.any(Number)])
    expect(results[0]!.outputs[0]!.text).toBe(results[1]!.outputs[0]!.text)
    expect(results[2]!.outputs[0]!.text).toBe('2 + 3 = 5.')
    expect(results[2]!.outputs[0]!.finishReason).toBe('stop')
    expect(results[0]!.outputs[0]!.finishReason).toBe('length')
  })

  test('log-probabilities agree with the logits', async () => {
    const ids = llm.tokenize('Once upon a time there was a')
    const [r] = await llm.generate({ promptTokenIds: ids }, { temperature: 0, maxTokens: 1, logprobs: 5, promptLogprobs: 1 })
    const { shape, data } = await llm.logits(ids)
    expect(shape).toEqual([ids.length, llm.info.vocabSize])
    const logProb = (row: number, id: number) => {
      const logits = data.subarray(row * shape[1], (row + 1) * shape[1])
      const top = logits.reduce((a, b) => Math.max(a, b))
      return logits[id]! - top - Math.log(logits.reduce((sum, z) => sum + Math.exp(z - top), 0))
    }
    const [token] = r!.outputs[0]!.logprobs!
    expect(token!.logprob).toBeCloseTo(logProb(ids.length - 1, token!.tokenId), 4)
    expect(token!.rank).toBe(1)
    expect(token!.top.map((t) => t.tokenId)[0]).toBe(token!.tokenId)
    expect(token!.top.map((t) => t.logprob)).toEqual([...token!.top.map((t) => t.logprob)].sort((a, b) => b - a))
    expect(r!.promptLogprobs![0]).toBeNull()
    for (let i = 1; i < ids.length; i++) {
      expect(r!.promptLogprobs![i]!.tokenId).toBe(ids[i])
      expect(r!.promptLogprobs![i]!.logprob).toBeCloseTo(logProb(i - 1, ids[i]!), 4)
    }
  })

  test('stream yields the same text as generate; leaving the loop aborts', async () => {
    const [whole] = await llm.generate('One day', { temperature: 0, maxTokens: 40 })
    let text = ''
    for await (const delta of llm.stream('One day', { temperature: 0, maxTokens: 40 })) text += delta.text
    expect(text).toBe(whole!.outputs[0]!.text)
    for await (const _ of llm.stream('One day', { temperature: 0, maxTokens: 1000 })) break
    const controller = new AbortController()
    setTimeout(() => controller.abort(), 30)
    await expect(llm.generate('One day', { maxTokens: 1500, ignoreEos: true }, { signal: controller.signal })).rejects.toThrow(/abort/i)
    await expect.poll(async () => (await llm.stats()).running).toBe(0)
  })

  test('a stop string ends the text before it, however it is cut into tokens', async () => {
    const [whole] = await llm.generate('One day', { temperature: 0, maxTokens: 40 })
    const text = whole!.outputs[0]!.text
    const stop = text.slice(11, 18)
    const [cut] = await llm.generate('One day', { temperature: 0, maxTokens: 40, stop: [stop] })
    expect(cut!.outputs[0]).toMatchObject({ text: text.slice(0, text.indexOf(stop)), finishReason: 'stop', stopReason: stop })
    const [kept] = await llm.generate('One day', { temperature: 0, maxTokens: 40, stop: [stop], includeStopStrInOutput: true })
    expect(kept!.outputs[0]!.text).toBe(text.slice(0, text.indexOf(stop) + stop.length))
    let streamed = ''
    for await (const delta of llm.stream('One day', { temperature: 0, maxTokens: 40, stop: [stop] })) streamed += delta.text
    expect(streamed).toBe(cut!.outputs[0]!.text)
  })

  test('n answers differ by their draws, and a seed repeats them', async () => {
    const ask = async () => (await llm.generate('Once', { n: 4, seed: 7, maxTokens: 16, ignoreEos: true }))[0]!.outputs.map((o) => o.text)
    const first = await ask()
    expect(new Set(first).size).toBeGreaterThan(1)
    expect(await ask()).toEqual(first)
  })

  test.each([
    [{ prompt: 'x' }, { temperature: -1 }, /temperature/],
    [{ prompt: 'x' }, { n: 1e9 }, /\bn\b/],
    [{ prompt: 'x' }, { topPee: 1 } as object, /topPee.*topP/],
    [{ promptTokenIds: [] }, {}, /empty|at least one/],
    [{ promptTokenIds: [5, 999_999] }, {}, /999,?999/],
    [{ promptTokenIds: [-1] }, {}, /-1/],
    [{ promptTokenIds: new Array(2048).fill(5) }, {}, /2,?048/],
    [{ promptTokenIds: [5] }, { logitBias: { 99999: 1 } }, /99,?999/],
    [{ prompts: 'x' } as never, {}, /prompt/],
  ])('bad input %# is refused by name, and others go on', async (prompt, params, message) => {
    const other = llm.generate('One day', { temperature: 0, maxTokens: 20 })
    await expect(llm.generate(prompt, params)).rejects.toThrow(message)
    expect((await other)[0]!.outputs[0]!.text.length).toBeGreaterThan(10)
  })
})

describe('a model folder that is not right', () => {
  const broken = async (change: (dir: string) => void, message: RegExp) => {
    const dir = mkdtempSync(join(tmpdir(), 'aphrodite-broken-'))
    try {
      for (const file of ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja'])
        copyFileSync(join(modelPath, file), join(dir, file))
      change(dir)
      await expect(LLM.create({ device: 'cpu', model: dir })).rejects.toThrow(message)
    } finally {
      rmSync(dir, { recursive: true, force: true })
    }
  }
  const editConfig = (edit: (config: Record<string, unknown>) => void) => (dir: string) => {
    const config = JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8')) as Record<string, unknown>
    edit(config)
    writeFileSync(join(dir, 'config.json'), JSON.stringify(config))
  }
  const weights = readFileSync(join(modelPath, 'model.safetensors'))

  test.each<[string, (dir: string) => void, RegExp]>([
    ['a truncated file', (dir) => writeFileSync(join(dir, 'model.safetensors'), weights.subarray(0, 1 << 20)), /model\.safetensors/],
    ['a header cut off', (dir) => writeFileSync(join(dir, 'model.safetensors'), weights.subarray(0, 100)), /model\.safetensors/],
    ['a config without a key', editConfig((c) => delete c['hidden_size']), /hidden_size is missing/],
    ['a config with a wrong size', editConfig((c) => (c['intermediate_size'] = 641)), /mlp\.\w+\.weight has the shape \[.*641/],
    ['a missing layer', editConfig((c) => (c['num_hidden_layers'] = 9)), /Missing: model\.layers\.8/],
    ['a layer too many', editConfig((c) => (c['num_hidden_layers'] = 7)), /Not expected: model\.layers\.7/],
    ['an unknown architecture', editConfig((c) => (c['architectures'] = ['LamaForCausalLM'])), /LamaForCausalLM.*LlamaForCausalLM/],
    ['a config that does not parse', (dir) => writeFileSync(join(dir, 'config.json'), '{ "architectures": ['), /config\.json/],
    ['a tokenizer that does not parse', (dir) => writeFileSync(join(dir, 'tokenizer.json'), '{ "model": '), /tokenizer\.json/],
    ['no weights', (dir) => rmSync(join(dir, 'model.safetensors')), /safetensors/],
    ['an unsupported activation', editConfig((c) => (c['hidden_act'] = 'tanh')), /hidden_act is "tanh"/],
  ])('%s', (_, change, message) => broken(change, message))

  test('no such folder', async () => {
    await expect(LLM.create({ device: 'cpu', model: '/no/such/folder' })).rejects.toThrow(/\/no\/such\/folder/)
  })

  test('dummy weights need nothing but config.json', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'aphrodite-dummy-'))
    cpSync(join(modelPath, 'config.json'), join(dir, 'config.json'))
    const llm = await LLM.create({ device: 'cpu', model: dir, loadFormat: 'dummy', skipTokenizerInit: true, kvCacheBytes: 16 << 20 })
    const [r] = await llm.generate({ promptTokenIds: [1, 2, 3] }, { maxTokens: 4, ignoreEos: true })
    expect(r!.outputs[0]!.tokenIds.length).toBe(4)
    await llm.close()
    rmSync(dir, { recursive: true })
  })
})
