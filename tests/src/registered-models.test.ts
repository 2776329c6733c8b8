import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { LLM } from '@aphrodite/llm'
import { ModelRegistry } from '@aphrodite/models'
import { LlamaForCausalLM } from '@aphrodite/models/llama'
import { readLlamaConfig } from '@aphrodite/models/llama-config'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { readFixture } from './fixture-cases.ts'

/** Somebody else's models, by every way of registering one, in the engine. They compute what Llama does. */
const MODULE = `
import { LlamaForCausalLM } from '@aphrodite/models/llama'
import { readLlamaConfig } from '@aphrodite/models/llama-config'
export default class extends LlamaForCausalLM { static readConfig = (c) => readLlamaConfig(c) }
`
const PLUGIN = `
import { ModelRegistry } from '@aphrodite/models'
ModelRegistry.registerModel('PluginForCausalLM', './model.mjs', { from: import.meta.url })
`
class HereForCausalLM extends LlamaForCausalLM {
  static readConfig = readLlamaConfig
}

let folder: string
beforeAll(() => {
  folder = mkdtempSync(fileURLToPath(new URL('../.snippet-models-', import.meta.url))) // where the packages of the workspace are found
  writeFileSync(join(folder, 'model.mjs'), MODULE)
  writeFileSync(join(folder, 'plugin.mjs'), PLUGIN)
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

async function serve(architecture: string, plugins: string[] = []): Promise<void> {
  const { directory, prompts, weights } = readFixture('hf/llama')
  weights.close()
  const model = join(folder, architecture)
  cpSync(directory, model, { recursive: true })
  const config = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8')) as Record<string, unknown>
  writeFileSync(join(model, 'config.json'), JSON.stringify({ ...config, architectures: [architecture] }))
  const llm = await LLM.create({ model, plugins, device: 'cpu', dtype: 'float32', skipTokenizerInit: true, threads: 1, pinThreads: false })
  try {
    const [result] = await llm.generate([{ promptTokenIds: prompts[1]!.prompt }], { temperature: 0, maxTokens: 8, ignoreEos: true })
    expect(result!.outputs[0]!.tokenIds).toEqual(prompts[1]!.greedy.slice(0, 8))
  } finally {
    await llm.close()
  }
}

test('a module follows the engine into its thread', async () => {
  ModelRegistry.registerModel('ModuleForCausalLM', join(folder, 'model.mjs'))
  await serve('ModuleForCausalLM')
})

test('a class is served in the thread that registered it', async () => {
  ModelRegistry.registerModel('HereForCausalLM', HereForCausalLM)
  await serve('HereForCausalLM')
})

test('a plugin registers models where the engine is', async () => {
  await serve('PluginForCausalLM', [join(folder, 'plugin.mjs')])
})

test('an installed package offers models', async () => {
  const home = join(folder, 'node_modules/offers')
  mkdirSync(home, { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{ "dependencies": { "offers": "1" } }')
  writeFileSync(join(home, 'package.json'), '{ "type": "module", "aphrodite": { "models": { "OfferedForCausalLM": "./x.js" } } }')
  writeFileSync(join(home, 'x.js'), MODULE)
  const before = process.cwd()
  process.chdir(folder)
  try {
    await serve('OfferedForCausalLM')
  } finally {
    process.chdir(before)
  }
})

test('without any of them the architecture is unknown, by name', async () => {
  await expect(serve('NobodyForCausalLM')).rejects.toThrow(/"NobodyForCausalLM"\..*Known: Gemma2ForCausalLM/)
})
