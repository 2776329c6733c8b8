import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { LLM, type LLMOptions } from '@aphrodite/llm'
import { ModelRegistry } from '@aphrodite/models'
import { LlamaForCausalLM } from '@aphrodite/models/llama'
import { readLlamaConfig } from '@aphrodite/models/llama-config'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readFixture } from './fixture-cases.ts'

/** Somebody else's models, by every way of registering one, in the engine. They compute what Llama does. */
const MODULE = `
import { LlamaForCausalLM } from '@aphrodite/models/llama'
import { readLlamaConfig } from '@aphrodite/models/llama-config'
export default class Theirs extends LlamaForCausalLM { static readConfig = (c) => readLlamaConfig(c) }
`
const PLUGIN = `
import { ModelRegistry } from '@aphrodite/models'
ModelRegistry.registerModel('PluginForCausalLM', './model.mjs', { from: import.meta.url })
`
/** The guide's: it registers a class, and is the command line from then on. */
const WRAPPER = `
import { run } from '@aphrodite/cli'
import { ModelRegistry } from '@aphrodite/models'
import Theirs from './model.mjs'
console.error('wrapper runs')
ModelRegistry.registerModel('WrappedForCausalLM', Theirs)
process.exitCode = await run(process.argv)
console.error('wrapper ends')
`
class HereForCausalLM extends LlamaForCausalLM {
  static readConfig = readLlamaConfig
}

let folder: string
const { directory, prompts, weights } = readFixture('hf/llama')
weights.close()
const [, { prompt, greedy }] = prompts as [unknown, (typeof prompts)[number]]
const expected = greedy.slice(0, 8)

beforeAll(() => {
  folder = mkdtempSync(fileURLToPath(new URL('../.snippet-models-', import.meta.url))) // where the packages of the workspace are found
  writeFileSync(join(folder, 'model.mjs'), MODULE)
  writeFileSync(join(folder, 'plugin.mjs'), PLUGIN)
  writeFileSync(join(folder, 'wrapper.mjs'), WRAPPER)
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** The fixture under another architecture's name. */
function checkpoint(architecture: string, change: (config: Record<string, unknown>) => object = (config) => config): string {
  const model = join(folder, architecture)
  cpSync(directory, model, { recursive: true })
  const config = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8')) as Record<string, unknown>
  writeFileSync(join(model, 'config.json'), JSON.stringify(change({ ...config, architectures: [architecture] })))
  return model
}

const plain = { device: 'cpu', dtype: 'float32', skipTokenizerInit: true, threads: 1, pinThreads: false } as const

async function serve(architecture: string, options: Partial<LLMOptions> = {}): Promise<string[]> {
  const said: string[] = []
  const model = options.model ?? checkpoint(architecture)
  const llm = await LLM.create({ ...plain, ...options, model, onProgress: (line) => said.push(line) })
  try {
    const [result] = await llm.generate([{ promptTokenIds: prompt }], { temperature: 0, maxTokens: 8, ignoreEos: true })
    expect(result!.outputs[0]!.tokenIds).toEqual(expected)
    expect(llm.info.architecture).toBe(architecture)
  } finally {
    await llm.close()
  }
  return said.filter((line) => line.startsWith('model: '))
}

test('a module follows the engine into its thread', async () => {
  ModelRegistry.registerModel('ModuleForCausalLM', join(folder, 'model.mjs'))
  expect(await serve('ModuleForCausalLM')).toEqual([`model: ModuleForCausalLM from ${join(folder, 'model.mjs')}`])
})

test('a class is served in the thread that registered it', async () => {
  ModelRegistry.registerModel('HereForCausalLM', HereForCausalLM)
  expect(await serve('HereForCausalLM')).toEqual(['model: HereForCausalLM from a class of this program'])
})

test('a class cannot be shared with ranks, and the error says how it could', async () => {
  ModelRegistry.registerModel('HereForCausalLM', HereForCausalLM)
  await expect(serve('HereForCausalLM', { tensorParallelSize: 2 })).rejects.toThrow(
    /HereForCausalLM is registered as a class of this program, .*Register a module that exports it, .*registerModel\(name, Class, \{ module: import\.meta\.url \}\)/,
  )
})

test('a class with its module follows the engine into its thread', async () => {
  const module = pathToFileURL(join(folder, 'model.mjs')).href
  ModelRegistry.registerModel('BothForCausalLM', HereForCausalLM, { module })
  expect(await serve('BothForCausalLM')).toEqual([`model: BothForCausalLM from ${join(folder, 'model.mjs')}`])
})

test('a plugin registers models where the engine is', async () => {
  expect(await serve('PluginForCausalLM', { plugins: [join(folder, 'plugin.mjs')] })).toHaveLength(1)
})

test('a model goes before the built-in one of its name, and the log says so', async () => {
  const registering =
    "import { ModelRegistry } from '@aphrodite/models'\nModelRegistry.registerModel('LlamaForCausalLM', './model.mjs', { from: import.meta.url })"
  writeFileSync(join(folder, 'instead.mjs'), registering)
  expect(await serve('LlamaForCausalLM', { plugins: [join(folder, 'instead.mjs')] })).toEqual([
    `model: LlamaForCausalLM from ${join(folder, 'model.mjs')}, instead of the built-in one`,
  ])
  expect(await serve('LlamaForCausalLM')).toEqual([])
})

test('an installed package offers models', async () => {
  const home = join(folder, 'node_modules/offers')
  mkdirSync(home, { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{ "dependencies": { "offers": "1" } }')
  const offer = '"aphrodite": { "models": { "OfferedForCausalLM": "./x.js" } }'
  writeFileSync(join(home, 'package.json'), `{ "name": "offers", "type": "module", ${offer} }`)
  writeFileSync(join(home, 'x.js'), MODULE)
  const before = process.cwd()
  process.chdir(folder)
  try {
    expect(await serve('OfferedForCausalLM')).toEqual([`model: OfferedForCausalLM from package offers, ${join(home, 'x.js')}`])
  } finally {
    process.chdir(before)
  }
})

describe('every rank has', () => {
  const ranks = { tensorParallelSize: 2 } as const
  test('a registered module', async () => {
    ModelRegistry.registerModel('ModuleForCausalLM', join(folder, 'model.mjs'))
    expect(await serve('ModuleForCausalLM', ranks)).toHaveLength(1)
  })
  test('a class that says where its module is', async () => {
    ModelRegistry.registerModel('BothForCausalLM', HereForCausalLM, { module: join(folder, 'model.mjs') })
    expect(await serve('BothForCausalLM', ranks)).toHaveLength(1)
  })
  test('a plugin', async () => {
    expect(await serve('PluginForCausalLM', { ...ranks, plugins: [join(folder, 'plugin.mjs')] })).toHaveLength(1)
  })
  test('what an installed package offers', async () => {
    const before = process.cwd()
    process.chdir(folder)
    try {
      expect(await serve('OfferedForCausalLM', ranks)).toHaveLength(1)
    } finally {
      process.chdir(before)
    }
  })
  test('the cause when a plugin is broken on another rank alone', async () => {
    const path = join(folder, 'elsewhere.mjs')
    writeFileSync(path, `${PLUGIN}\nif (process.argv[1]?.includes('follower-thread')) throw new Error('not on this rank')`)
    await expect(serve('PluginForCausalLM', { ...ranks, plugins: [path] })).rejects.toThrow(/elsewhere\.mjs.*not on this rank/)
  })
})

test('without any of them the architecture is unknown, by name', async () => {
  await expect(serve('NobodyForCausalLM')).rejects.toThrow(/"NobodyForCausalLM"\..*Known: .*Gemma2ForCausalLM/)
})

test('a plugin with copies of its own of our packages is told so', async () => {
  const home = join(folder, 'apart')
  for (const name of ['layers', 'models', 'tensor'])
    for (const part of ['dist', 'package.json'])
      cpSync(join(root, 'packages', name, part), join(home, 'node_modules/@aphrodite', name, part), { recursive: true })
  writeFileSync(
    join(home, 'definition.mjs'),
    `${MODULE.replace('export default ', '')}
export default { architectures: ['ApartForCausalLM'], readConfig: Theirs.readConfig, create: (c) => new Theirs(c) }`,
  )
  await expect(serve('ApartForCausalLM', { plugins: [join(home, 'definition.mjs')] })).rejects.toThrow(
    /ApartForCausalLM from .*definition\.mjs: its model is made with another copy of @aphrodite\/layers than this engine\. Run the aphrodite/,
  )
})

test.each<[string, string, RegExp]>([
  ['throws', 'const nothing = undefined\nnothing.field', /Cannot read properties of undefined \(reading 'field'\) \(.*\/throws\.mjs:2\)/],
  ['does not parse', 'export const a = }', /\/does not parse\.mjs: Unexpected token '}'/],
  [
    'imports what is not there',
    "import 'no-such-package'",
    /Cannot find package 'no-such-package' imported from .*\/imports what is not there\.mjs/,
  ],
  ['registers nothing', 'export const a = 1', /\/registers nothing\.mjs registers no model/],
])('a plugin that %s ends the start with its file and the cause', async (name, text, message) => {
  const path = join(folder, `${name}.mjs`)
  writeFileSync(path, text)
  const error = await serve('LlamaForCausalLM', { plugins: [path] }).catch((e) => e)
  expect([error.code, error.message]).toEqual(['BAD_PLUGIN', expect.stringMatching(message)])
  expect(error.message).toContain(path)
})

describe('a program that registers a class and then calls run', () => {
  const wrapper = (...args: string[]) =>
    new Promise<{ stdout: string; stderr: string; status: number }>((resolve) => {
      const child = execFile(
        process.execPath,
        [join(folder, 'wrapper.mjs'), ...args],
        { env: { ...process.env, APHRODITE_DEVICE: 'cpu' }, timeout: 90_000 },
        (error, stdout, stderr) => resolve({ stdout, stderr, status: error ? Number(error.code ?? 1) : 0 }),
      )
      child.stdin?.end()
    })

  test('has its engine in a thread, where it is run again for its registrations', async () => {
    const { stdout, stderr, status } = await wrapper('verify', checkpoint('WrappedForCausalLM'), '--dtype', 'float32', '--no-runs')
    expect(stdout).toMatch(/verified\n$/)
    expect(stdout).not.toMatch(/NOT/)
    expect(stderr.match(/wrapper runs/g)).toHaveLength(2)
    expect(stderr.match(/wrapper ends/g)).toHaveLength(1)
    expect(status).toBe(0)
  })
  test('has it on every rank', async () => {
    const { stdout, stderr, status } = await wrapper('verify', checkpoint('WrappedForCausalLM'), '--dtype', 'float32', '-tp', '2')
    expect(stdout).toMatch(/[^T] verified\n$|^verified\n$/m)
    expect(stderr.match(/wrapper runs/g)).toHaveLength(3)
    expect(stderr.match(/wrapper ends/g)).toHaveLength(1)
    expect(status).toBe(0)
  })
  test('says what is wrong as the command does', async () => {
    const { stderr, status } = await wrapper('verify', '/no/such/model', '--device', 'cpu')
    expect(stderr).toMatch(/aphrodite: MODEL_NOT_FOUND: .*\/no\/such\/model/)
    expect(stderr).not.toMatch(/\n\s+at /)
    expect(status).toBe(1)
  })
  test('inspects where it is', async () => {
    const { stdout, stderr, status } = await wrapper('inspect', checkpoint('WrappedForCausalLM'), '--step')
    expect(stdout).toMatch(/a decode step of 1 sequence/)
    expect([stderr.match(/wrapper runs/g)?.length, status]).toEqual([1, 0])
  })
  test('that registers only sometimes is told so', async () => {
    const sometimes = join(folder, 'sometimes.mjs')
    writeFileSync(
      sometimes,
      "import { isMainThread } from 'node:worker_threads'\n" +
        WRAPPER.replace('process.exitCode = await run(process.argv)', 'await main()')
          .replace('{ run }', '{ main }')
          .replace('\nModelRegistry.', '\nif (isMainThread) ModelRegistry.'),
    )
    const { stderr, status } = await new Promise<{ stderr: string; status: number }>((resolve) =>
      execFile(process.execPath, [sometimes, 'verify', checkpoint('WrappedForCausalLM'), '--device', 'cpu'], (error, _, stderr) =>
        resolve({ stderr, status: Number(error?.code ?? 0) }),
      ),
    )
    expect(stderr).toMatch(
      /BAD_PLUGIN: .*\/sometimes\.mjs registers no model\. It should call ModelRegistry\.registerModel whenever it is imported/,
    )
    expect(status).toBe(1)
  })
})

describe('a definition brings', () => {
  const definition = (name: string, more: string) => {
    const path = join(folder, `${name}.mjs`)
    writeFileSync(
      path,
      `import { defineModel, unquantized, unquantizedMethod } from '@aphrodite/layers'
import { LlamaForCausalLM } from '@aphrodite/models/llama'
import { readLlamaConfig } from '@aphrodite/models/llama-config'
export default defineModel({
  architectures: ['${name}'], readConfig: (c) => readLlamaConfig(c), create: (c) => new LlamaForCausalLM(c),
  ${more}
})`,
    )
    return [path]
  }

  test('a reader of its own for a config.json that keeps things elsewhere', async () => {
    const model = checkpoint('NestedForCausalLM', ({ architectures, ...text_config }) => ({ architectures, text_config }))
    const plugins = definition('NestedForCausalLM', 'adaptConfig: ({ text_config, ...rest }) => ({ ...text_config, ...rest }),')
    await serve('NestedForCausalLM', { model, plugins })
    await expect(serve('NestedForCausalLM', { model, plugins: definition('NestedForCausalLM', '') })).rejects.toThrow(/is missing/)
  })

  test('names for the tensors of its checkpoints', async () => {
    const model = checkpoint('RenamedForCausalLM')
    const { stdout } = await new Promise<{ stdout: string }>((resolve) =>
      execFile(process.execPath, ['-e', RENAME, join(model, 'model.safetensors')], (error, stdout, stderr) =>
        resolve({ stdout: error ? stderr : stdout }),
      ),
    )
    expect(stdout).toBe('renamed\n')
    const rename = "weightName: (name) => name === 'transformer.noise' ? undefined : name.replace(/^transformer\\./, 'model.'),"
    await serve('RenamedForCausalLM', { model, plugins: definition('RenamedForCausalLM', rename) })
    await expect(serve('RenamedForCausalLM', { model, plugins: definition('RenamedForCausalLM', '') })).rejects.toThrow(
      /WEIGHT_NAMES|Missing/,
    )
  })

  test('a quantisation method', async () => {
    const model = checkpoint('HalvedForCausalLM', (config) => ({ ...config, quantization_config: { quant_method: 'doubled', by: 2 } }))
    const method = (factor: number) => `quantizations: {
    doubled: (c) => ({
      name: 'doubled',
      methodFor: (path) => path.includes('mlp') ? {
        name: 'doubled',
        materialize(plan, env, weights) {
          const inner = unquantizedMethod.materialize(plan, env, weights)
          return { apply(out, x, bias) {
            const scaled = x.empty(x.shape)
            x.kernels.scale(scaled, x, c.number('by') * ${factor})
            inner.apply(out, scaled, bias)
          } }
        },
      } : unquantizedMethod,
    }),
  },`
    await serve('HalvedForCausalLM', { model, plugins: definition('HalvedForCausalLM', method(0.5)) })
    await expect(serve('HalvedForCausalLM', { model, plugins: definition('HalvedForCausalLM', method(5)) })).rejects.toThrow(/deeply equal/)
    await expect(serve('HalvedForCausalLM', { model, plugins: definition('HalvedForCausalLM', '') })).rejects.toThrow(
      /quantization_config names the method "doubled"; this version reads/,
    )
  })

  test('a chat template for checkpoints that come without one', async () => {
    const model = checkpoint('TalkativeForCausalLM')
    for (const file of ['tokenizer.json']) cpSync(join(demo, file), join(model, file))
    const template = 'chatTemplate: "{% for m in messages %}<{{ m.content }}>{% endfor %}",'
    const plugins = definition('TalkativeForCausalLM', template)
    const render = async (more: Partial<LLMOptions> = {}) => {
      const llm = await LLM.create({ ...plain, skipTokenizerInit: false, model, plugins, ...more })
      try {
        return [llm.hasChatTemplate, llm.detokenize(llm.tokenize({ messages: [{ role: 'user', content: 'hi' }] }))]
      } finally {
        await llm.close()
      }
    }
    expect(await render()).toEqual([true, '<hi>'])
    expect(await render({ chatTemplate: '[{{ messages[0].content }}]' })).toEqual([true, '[hi]'])
    writeFileSync(join(model, 'chat_template.jinja'), '({{ messages[0].content }})')
    expect(await render()).toEqual([true, '(hi)'])
  })
})

const root = fileURLToPath(new URL('../..', import.meta.url))
const demo = fileURLToPath(new URL('../../packages/demo-model/model', import.meta.url))

/** Puts a checkpoint's tensors under `transformer.`, and one more beside them that no model reads. */
const RENAME = `
const fs = require('node:fs')
const file = process.argv[1]
const bytes = fs.readFileSync(file)
const length = Number(bytes.readBigUInt64LE(0))
const header = JSON.parse(bytes.subarray(8, 8 + length))
const renamed = Object.fromEntries(Object.entries(header).map(([n, t]) => [n.replace(/^model\\./, 'transformer.'), t]))
const end = bytes.length - 8 - length
renamed['transformer.noise'] = { dtype: 'F32', shape: [1], data_offsets: [end, end + 4] }
const text = Buffer.from(JSON.stringify(renamed))
const size = Buffer.alloc(8)
size.writeBigUInt64LE(BigInt(text.length))
fs.writeFileSync(file, Buffer.concat([size, text, bytes.subarray(8 + length), Buffer.alloc(4)]))
console.log('renamed')
`
