import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { CausalLM, type ConfigReader, defineModel, type Step } from '@aphrodite/layers'
import type { Tensor } from '@aphrodite/tensor'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ARCHITECTURES } from '../src/architectures.ts'
import { LlamaForCausalLM } from '../src/llama.ts'
import { findPlugin, loadPlugins } from '../src/plugin.ts'
import { Qwen3ForCausalLM } from '../src/qwen3.ts'
import { ArchitectureRegistry, ModelRegistry } from '../src/registry.ts'

/** A model that only remembers what it was made of. */
class Toy extends CausalLM {
  readonly vocabSize: number = 1
  readonly maxModelLen: number = 1
  readonly made: unknown
  constructor(made: unknown) {
    super()
    this.made = made
  }
  forward(step: Step): Tensor {
    return step.inputIds
  }
  logits(hidden: Tensor): Tensor {
    return hidden
  }
}
class WithReader extends Toy {
  static readConfig(c: ConfigReader) {
    return { size: c.count('size') }
  }
}

const llama = {
  hidden_size: 8,
  num_attention_heads: 2,
  num_hidden_layers: 1,
  intermediate_size: 8,
  vocab_size: 10,
  max_position_embeddings: 16,
}

let dir: string
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'aphrodite-registry-'))
  const write = (path: string, text: string) => {
    mkdirSync(join(dir, path, '..'), { recursive: true })
    writeFileSync(join(dir, path), text)
  }
  const toy = `class Toy { constructor(made) { this.made = made } forward() {} logits() {} }\n`
  const defined = (name: string, tag: string) =>
    `{ architectures: ['${name}'], readConfig: (c) => '${tag}', create: (made) => new Toy(made) }`
  write('package.json', '{}')
  write('local.mjs', `${toy}export default Toy`)
  write('two.mjs', `${toy}export default [${defined('OneForCausalLM', 'one')}, ${defined('TwoForCausalLM', 'two')}]`)
  write('named.mjs', `${toy}export const NamedForCausalLM = Toy`)
  write('broken.mjs', 'throw new Error("does not start")')
  write('number.mjs', 'export default 7')
  write('node_modules/a-model/package.json', '{ "name": "a-model", "type": "module", "exports": { ".": { "import": "./main.js" } } }')
  write('node_modules/a-model/main.js', `${toy}export default ${defined('AForCausalLM', 'a-model')}`)
  write('node_modules/@scope/b-model/package.json', '{ "name": "@scope/b-model", "type": "module", "main": "main.js" }')
  write('node_modules/@scope/b-model/main.js', `${toy}export default ${defined('BForCausalLM', 'b-model')}`)
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const made = async (registry: ArchitectureRegistry, name: string, more = {}) =>
  ((await registry.create({ architectures: [name], ...more })) as Toy).made

describe('built-in models', () => {
  test.each(Object.keys(ARCHITECTURES))('%s is served by the module that its line names', async (name) => {
    const definition = await ModelRegistry.resolve([name])
    expect(definition.architectures).toContain(name)
  })
  test('are made from config.json, without memory', async () => {
    const model = await ModelRegistry.create({ ...llama, architectures: ['LlamaForCausalLM'] })
    expect(model).toBeInstanceOf(LlamaForCausalLM)
    expect([model.vocabSize, model.maxModelLen]).toEqual([10, 16])
  })
  test('the first known architecture counts', async () => {
    expect(await ModelRegistry.create({ ...llama, architectures: ['Nobody', 'Qwen3ForCausalLM'] })).toBeInstanceOf(Qwen3ForCausalLM)
  })
})

describe('an unknown architecture', () => {
  test('names the nearest and the list', async () => {
    const error = await ModelRegistry.create({ architectures: ['LamaForCausalLM'] }).catch((e) => e)
    expect(error.code).toBe('UNKNOWN_ARCHITECTURE')
    expect(error.message).toMatch(/"LamaForCausalLM".*The nearest is LlamaForCausalLM\. Known: Gemma2ForCausalLM, .*Qwen3ForCausalLM\./)
  })
  test('that is far from all, absent, not a list, or a name of Object', async () => {
    const message = (config: Record<string, unknown>) => ModelRegistry.create(config).then(String, (e) => `${e.code} ${e.message}`)
    expect(await message({ architectures: ['BertModel'] })).toMatch(/^UNKNOWN_ARCHITECTURE .*"BertModel"\. Known/)
    expect(await message({})).toMatch(/^UNKNOWN_ARCHITECTURE .*a config.json without architectures/)
    expect(await message({ architectures: 'LlamaForCausalLM' })).toMatch(/^BAD_CONFIG config.json: architectures should be a list/)
    expect(await message({ architectures: ['constructor'] })).toMatch(/^UNKNOWN_ARCHITECTURE/)
    expect((await message({ architectures: ['x'.repeat(100_000)] })).length).toBeLessThan(1000)
  })
})

describe('registerModel', () => {
  test('takes a class with readConfig, and one that takes the reader', async () => {
    const registry = new ArchitectureRegistry()
    registry.registerModel('XForCausalLM', WithReader)
    registry.registerModel('YForCausalLM', Toy)
    expect(await made(registry, 'XForCausalLM', { size: 3 })).toEqual({ size: 3 })
    await expect(made(registry, 'XForCausalLM')).rejects.toThrow(/config.json: size is missing/)
    expect(((await made(registry, 'YForCausalLM', { size: 4 })) as ConfigReader).count('size')).toBe(4)
    expect(registry.architectures()).toContain('XForCausalLM')
  })
  test('takes a definition, also under another name', async () => {
    const registry = new ArchitectureRegistry()
    registry.registerModel('ZForCausalLM', defineModel({ architectures: ['Other'], readConfig: () => 5, create: (c) => new Toy(c) }))
    expect(await made(registry, 'ZForCausalLM')).toBe(5)
  })
  test('goes before a built-in model, and registries do not know each other', async () => {
    const registry = new ArchitectureRegistry()
    registry.registerModel('LlamaForCausalLM', Toy)
    expect(await registry.create({ architectures: ['LlamaForCausalLM'] })).toBeInstanceOf(Toy)
    expect(await new ArchitectureRegistry().create({ ...llama, architectures: ['LlamaForCausalLM'] })).toBeInstanceOf(LlamaForCausalLM)
  })
  test('says where a model is from, and that it takes the place of a built-in one', () => {
    const registry = new ArchitectureRegistry()
    registry.registerModel('LlamaForCausalLM', './local.mjs', { from: dir })
    registry.registerModel('XForCausalLM', Toy)
    expect(registry.describe('LlamaForCausalLM')).toBe(`LlamaForCausalLM from ${join(dir, 'local.mjs')}, instead of the built-in one`)
    expect(registry.describe('XForCausalLM')).toBe('XForCausalLM from a class of this program')
    expect(registry.describe('Qwen3ForCausalLM')).toBeUndefined()
  })
  test('takes a class with the module that others find it in', async () => {
    const registry = new ArchitectureRegistry()
    registry.registerModel('XForCausalLM', Toy, { module: pathToFileURL(join(dir, 'local.mjs')).href })
    expect(registry.isInProcessOnly('XForCausalLM')).toBe(false)
    expect(await registry.create({ architectures: ['XForCausalLM'] })).toBeInstanceOf(Toy)
    const other = new ArchitectureRegistry()
    other.replay(structuredClone(registry.registrations()))
    const there = await other.create({ architectures: ['XForCausalLM'] })
    expect([there.constructor.name, there instanceof Toy]).toEqual(['Toy', false])
    registry.replay(registry.registrations())
    expect(await registry.create({ architectures: ['XForCausalLM'] })).toBeInstanceOf(Toy)
  })
  test('refuses what is no model', () => {
    const registry = new ArchitectureRegistry()
    for (const wrong of [7, {}, () => {}, class Empty {}, null])
      expect(() => registry.registerModel('X', wrong as never)).toThrow(/for X; it should be a class that extends CausalLM/)
  })
  test('finds modules: a path, a URL, a package of the caller, one that can only be imported', async () => {
    const registry = new ArchitectureRegistry()
    const from = pathToFileURL(join(dir, 'app.js'))
    registry.registerModel('L1', join(dir, 'local.mjs'))
    registry.registerModel('L2', './local.mjs', { from })
    registry.registerModel('L3', pathToFileURL(join(dir, 'local.mjs')).href)
    registry.registerModel('OneForCausalLM', './two.mjs', { from: dir })
    registry.registerModel('TwoForCausalLM', './two.mjs', { from })
    registry.registerModel('NamedForCausalLM', './named.mjs', { from })
    registry.registerModel('AForCausalLM', 'a-model', { from })
    registry.registerModel('BForCausalLM', '@scope/b-model', { from: from.href })
    for (const name of ['L1', 'L2', 'L3', 'NamedForCausalLM'])
      expect(((await made(registry, name, { size: 6 })) as ConfigReader).count('size')).toBe(6)
    expect(await made(registry, 'OneForCausalLM')).toBe('one')
    expect(await made(registry, 'TwoForCausalLM')).toBe('two')
    expect(await made(registry, 'AForCausalLM')).toBe('a-model')
    expect(await made(registry, 'BForCausalLM')).toBe('b-model')
  })
  test('says which module is missing, broken, or exports no model', async () => {
    const registry = new ArchitectureRegistry()
    const options = { from: dir }
    expect(() => registry.registerModel('X', 'no-such-package', options)).toThrow(/"no-such-package" was not found from .*Install it/)
    registry.registerModel('X', './broken.mjs', options)
    await expect(made(registry, 'X')).rejects.toThrow(/broken\.mjs, registered for X, could not be imported: does not start/)
    registry.registerModel('X', './number.mjs', options)
    await expect(made(registry, 'X')).rejects.toThrow(/number\.mjs gives a number for X/)
    registry.registerModel('ThreeForCausalLM', './two.mjs', options)
    await expect(made(registry, 'ThreeForCausalLM')).rejects.toThrow(/two\.mjs exports no model for ThreeForCausalLM/)
  })
})

describe('models of installed packages', () => {
  const project = (manifest: Record<string, unknown>) => {
    const home = mkdtempSync(join(dir, 'project-'))
    const offer = join(home, 'node_modules/offers')
    mkdirSync(offer, { recursive: true })
    writeFileSync(join(home, 'package.json'), JSON.stringify({ dependencies: { offers: '1', absent: '1', 'a-model': '1' } }))
    writeFileSync(join(offer, 'package.json'), JSON.stringify({ name: 'offers', type: 'module', ...manifest }))
    writeFileSync(join(offer, 'x.js'), 'export class X { constructor() { this.made = "offered" } forward() {} }; export default X')
    return home
  }
  test('are found by what their package.json says', async () => {
    const registry = new ArchitectureRegistry()
    registry.discover(project({ aphrodite: { models: { OfferedForCausalLM: './x.js' } } }))
    expect(registry.registrations().map((r) => r.architecture)).toEqual(['OfferedForCausalLM'])
    expect(await made(registry, 'OfferedForCausalLM')).toBe('offered')
  })
  test('do not replace what was registered by hand', async () => {
    const registry = new ArchitectureRegistry()
    registry.registerModel('OfferedForCausalLM', Toy)
    registry.discover(project({ aphrodite: { models: { OfferedForCausalLM: './x.js' } } }))
    expect(registry.isInProcessOnly('OfferedForCausalLM')).toBe(true)
  })
  test('that are offered wrongly are an error that names the file', () => {
    for (const models of [{ X: './no.js' }, { X: 7 }, { X: '../x.js' }, [], 'x'])
      expect(() => new ArchitectureRegistry().discover(project({ aphrodite: { models } }))).toThrow(
        /offers.package\.json: aphrodite\.models.* is .*; (it should|there is no such file)/,
      )
  })
  test('are those of the project itself too, looked for from the folder upwards', async () => {
    const home = project({})
    writeFileSync(join(home, 'x.js'), 'export default class X { constructor() { this.made = "own" } forward() {} }')
    writeFileSync(join(home, 'package.json'), '{ "type": "module", "aphrodite": { "models": { "OwnForCausalLM": "./x.js" } } }')
    mkdirSync(join(home, 'deep/er'), { recursive: true })
    const registry = new ArchitectureRegistry()
    registry.discover(join(home, 'deep/er'))
    expect(await made(registry, 'OwnForCausalLM')).toBe('own')
  })
  test('are an error when two packages offer the one that is asked for, until somebody says which', async () => {
    const home = project({ aphrodite: { models: { OfferedForCausalLM: './x.js', OtherForCausalLM: './x.js' } } })
    writeFileSync(join(home, 'package.json'), '{ "dependencies": { "offers": "1", "rival": "1" } }')
    mkdirSync(join(home, 'node_modules/rival'))
    writeFileSync(
      join(home, 'node_modules/rival/package.json'),
      '{ "name": "rival", "type": "module", "aphrodite": { "models": { "OfferedForCausalLM": "./y.js" } } }',
    )
    writeFileSync(join(home, 'node_modules/rival/y.js'), 'export default class Y { constructor() { this.made = "rival" } forward() {} }')
    const registry = new ArchitectureRegistry()
    registry.discover(home)
    await expect(made(registry, 'OfferedForCausalLM')).rejects.toThrow(/offers and rival both offer OfferedForCausalLM. Say which/)
    expect(await made(registry, 'OtherForCausalLM')).toBe('offered')
    await loadPlugins(registry, [findPlugin('rival', home)])
    expect(await made(registry, 'OfferedForCausalLM')).toBe('rival')
  })
  test('are none where there is no project, or a broken one', () => {
    expect(() => new ArchitectureRegistry().discover(join(dir, 'nowhere'))).not.toThrow()
    const home = project({})
    writeFileSync(join(home, 'node_modules/offers/package.json'), '{')
    expect(() => new ArchitectureRegistry().discover(home)).not.toThrow()
  })
})

test('module registrations are plain data that another thread can make again; classes stay here', async () => {
  const registry = new ArchitectureRegistry()
  registry.registerModel('AForCausalLM', 'a-model', { from: dir })
  registry.registerModel('X', Toy)
  expect(registry.registrations()).toEqual([
    { architecture: 'AForCausalLM', module: pathToFileURL(join(dir, 'node_modules/a-model/main.js')).href },
  ])
  expect([registry.isInProcessOnly('X'), registry.isInProcessOnly('AForCausalLM'), registry.isInProcessOnly('LlamaForCausalLM')]).toEqual([
    true,
    false,
    false,
  ])
  const other = new ArchitectureRegistry()
  other.replay(structuredClone(registry.registrations()))
  expect(await made(other, 'AForCausalLM')).toBe('a-model')
  registry.registerModel('X', join(dir, 'local.mjs'))
  expect(registry.isInProcessOnly('X')).toBe(false)
})
