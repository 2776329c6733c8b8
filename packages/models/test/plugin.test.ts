import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { findPlugin, loadPlugins, type Plugin } from '../src/plugin.ts'
import { ArchitectureRegistry } from '../src/registry.ts'

let dir: string
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'aphrodite-plugin-'))
  const write = (path: string, text: string) => {
    mkdirSync(join(dir, path, '..'), { recursive: true })
    writeFileSync(join(dir, path), text)
  }
  const model = (name: string) => `class Toy { constructor() { this.made = '${name}' } forward() {} logits() {} }`
  const definition = (name: string) => `{ architectures: ['${name}'], readConfig: () => 0, create: () => new Toy() }`
  write('package.json', '{}')
  write('defined.mjs', `${model('file')}\nexport default [${definition('AForCausalLM')}, ${definition('BForCausalLM')}]`)
  write('named.mjs', `${model('named')}\nexport class CForCausalLM extends Toy {}\nexport const forCausalLM = 3`)
  write(
    'both.mjs',
    `${model('class')}\nexport class GForCausalLM extends Toy {}\nexport default { ...${definition('GForCausalLM')}, readConfig: () => 'defined', create: (made) => Object.assign(new Toy(), { made }) }`,
  )
  write('empty.mjs', 'export default 5')
  write('throws.mjs', 'const nothing = undefined\nnothing.field')
  write('missing.mjs', 'import "no-such-package"')
  write('folder/package.json', '{ "name": "foldered", "version": "1.2.3", "type": "module", "main": "m.js" }')
  write('folder/m.js', `${model('main')}\nexport default ${definition('DForCausalLM')}`)
  write('nothing/package.json', '{ "name": "nothing" }')
  const offers = (file: string) => `"aphrodite": { "models": { "EForCausalLM": "${file}" } }`
  write('node_modules/offers/package.json', `{ "name": "offers", "version": "2.0.0", "type": "module", ${offers('./e.js')} }`)
  write('node_modules/offers/e.js', `${model('offered')}\nexport default ${definition('EForCausalLM')}`)
  write('node_modules/broken/package.json', `{ "name": "broken", "version": "0.1.0", "type": "module", ${offers('./lib/e.js')} }`)
  write('node_modules/broken/lib/e.js', 'throw new TypeError("no such luck")')
  write('node_modules/unbuilt/package.json', `{ "name": "unbuilt", "version": "0.1.0", "type": "module", ${offers('./dist/e.js')} }`)
  write('node_modules/imported/package.json', '{ "name": "imported", "type": "module", "exports": { "import": "./i.js" } }')
  write('node_modules/imported/i.js', `${model('imported')}\nexport default ${definition('FForCausalLM')}`)
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const load = async (name: string): Promise<ArchitectureRegistry> => {
  const registry = new ArchitectureRegistry()
  await loadPlugins(registry, [structuredClone(findPlugin(name, dir))])
  return registry
}
const made = async (registry: ArchitectureRegistry, architecture: string) =>
  ((await registry.create({ architectures: [architecture] })) as unknown as { made: unknown }).made

describe('a plugin', () => {
  test.each<[string, string, string, string]>([
    ['a package that offers models', 'offers', 'EForCausalLM', 'offered'],
    ['a package that exports one', 'imported', 'FForCausalLM', 'imported'],
    ['a folder with an entry', './folder', 'DForCausalLM', 'main'],
    ['a folder that offers models', './node_modules/offers', 'EForCausalLM', 'offered'],
    ['a folder without ./, where no package has its name', 'folder', 'DForCausalLM', 'main'],
    ['a file with definitions', './defined.mjs', 'BForCausalLM', 'file'],
    ['a file with a definition and its class', './both.mjs', 'GForCausalLM', 'defined'],
    ['a file with a class under its name', 'named.mjs', 'CForCausalLM', 'named'],
  ])('is %s', async (_, name, architecture, expected) => {
    const registry = await load(name)
    expect(await made(registry, architecture)).toBe(expected)
    expect(registry.isInProcessOnly(architecture)).toBe(false)
  })
  test('is a path from the root, or a URL', async () => {
    expect((await load(join(dir, 'defined.mjs'))).registered()).toEqual(['AForCausalLM', 'BForCausalLM'])
    expect((await load(pathToFileURL(join(dir, 'defined.mjs')).href)).registered()).toEqual(['AForCausalLM', 'BForCausalLM'])
  })
  test('goes before what is built in', async () => {
    const path = join(dir, 'llama.mjs')
    writeFileSync(path, 'export class LlamaForCausalLM { constructor() { this.made = "theirs" } forward() {} }')
    expect(await made(await load(path), 'LlamaForCausalLM')).toBe('theirs')
  })
})

test.each<[string, string, RegExp]>([
  ['a package that is not there', 'no-plugin', /the plugin "no-plugin": the module "no-plugin" was not found from .* Install it/],
  ['a file that is not there', './no.mjs', /the plugin "\.\/no\.mjs": there is no file or folder .*\/no\.mjs/],
  ['a folder of nothing', './nothing', /"\.\/nothing": .*\/nothing is a folder without "aphrodite"/],
  [
    'a package that is not built',
    'unbuilt',
    /unbuilt\/package\.json: aphrodite\.models\.EForCausalLM is "\.\/dist\/e\.js".*Is the package built\?/,
  ],
  ['a module that registers nothing', './empty.mjs', /\.\/empty\.mjs: .*\/empty\.mjs registers no model\. It should/],
  ['an error while it is imported', './throws.mjs', /the plugin \.\/throws\.mjs: .*\/throws\.mjs: Cannot read properties of undefined/],
  ['an import that fails', './missing.mjs', /\.\/missing\.mjs: .*no-such-package/],
  ['a broken file of a package', 'broken', /broken \(package broken 0\.1\.0\): .*broken\/lib\/e\.js.*EForCausalLM.*no such luck/],
])('%s is BAD_PLUGIN with the package, the file and the cause', async (_, name, message) => {
  const error = await load(name).catch((e) => e)
  expect([error.code, error.message]).toEqual(['BAD_PLUGIN', expect.stringMatching(message)])
})

test('what crosses to another thread is plain data', () => {
  const plugins: Plugin[] = [findPlugin('offers', dir), findPlugin('./defined.mjs', dir)]
  expect(JSON.parse(JSON.stringify(plugins))).toEqual(plugins)
  expect(plugins[0]!.package).toBe('offers 2.0.0')
})
