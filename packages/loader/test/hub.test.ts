import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { hubSettings } from '../src/hub/settings.ts'
import { type HubOptions, type HubProgress, isHubId, resolveModel } from '../src/hub.ts'
import { breakAfter, FakeHub, gitHash, refuse, sha256 } from './hub-server.ts'
import { f32, random, safetensors, scratch } from './writer.ts'

const { folder, remove } = scratch()
afterAll(remove)

const ID = 'some-org/Tiny-1.0'
const NAME = 'models--some-org--Tiny-1.0'
const next = random(7)
const noise = (n: number): Buffer => Buffer.from(Array.from({ length: n }, () => Math.floor(next() * 256)))
const weights = Buffer.from(safetensors({ a: f32([2], 1, 2), b: { dtype: 'U8', shape: [300_000], data: noise(300_000) } }))
const config = '{"architectures":["LlamaForCausalLM"]}'

let hub: FakeHub
let cacheDir: string
let count = 0
beforeEach(async () => {
  hub = new FakeHub(ID)
  cacheDir = join(folder, `cache-${count++}`)
  hub.add('config.json', config)
  hub.add('tokenizer.json', '{"model":{}}')
  hub.add('chat_template.jinja', '{{ messages }}')
  hub.add('model.safetensors', weights, true)
  hub.add('pytorch_model.bin', noise(100), true)
  hub.add('README.md', '# Tiny')
  hub.add('original/consolidated.safetensors', noise(10), true)
  hub.add('.gitattributes', '*.bin filter=lfs')
  await hub.start()
})
afterEach(() => hub.stop())

const get = (options: HubOptions = {}, id = ID): Promise<string> =>
  resolveModel(id, { endpoint: hub.endpoint, cacheDir, offline: false, retryDelayMs: 5, ...options })
const blobs = (): string[] => readdirSync(join(cacheDir, NAME, 'blobs')).sort()
const refused = (code: string, ...parts: string[]) =>
  expect.objectContaining({
    name: 'AphroditeError',
    code,
    message: expect.stringMatching(new RegExp(parts.map((p) => p.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('[^]*'))),
  })

describe('a download', () => {
  test('fills the cache as Python lays it out', async () => {
    const progress: HubProgress[] = []
    const model = await get({ token: 'hf_secret', onProgress: (p) => progress.push(p) })
    expect(model).toBe(join(cacheDir, NAME, 'snapshots', hub.commit))
    expect(readdirSync(model).sort()).toEqual(['chat_template.jinja', 'config.json', 'model.safetensors', 'tokenizer.json'])
    expect(readFileSync(join(cacheDir, NAME, 'refs/main'), 'utf8')).toBe(hub.commit)
    expect(readFileSync(join(model, 'config.json'), 'utf8')).toBe(config)
    expect(readFileSync(join(model, 'model.safetensors')).equals(weights)).toBe(true)
    expect(readlinkSync(join(model, 'config.json'))).toBe(`../../blobs/${gitHash(Buffer.from(config))}`)
    expect(readlinkSync(join(model, 'model.safetensors'))).toBe(`../../blobs/${sha256(weights)}`)
    expect(blobs()).toHaveLength(4)
    // Weights last: where they are, everything is.
    expect(hub.downloads().at(-1)).toBe('model.safetensors')
    const last = progress.at(-1)!
    expect(last).toMatchObject({ file: 'model.safetensors', received: weights.length, size: weights.length, totalReceived: last.totalSize })
    expect(progress.every((p, i) => i === 0 || p.totalReceived >= progress[i - 1]!.totalReceived)).toBe(true)
    // The token is for the hub, not for where it redirects to.
    expect(hub.requests.every((r) => r.authorization === 'Bearer hf_secret')).toBe(true)
    expect(hub.storageRequests).toHaveLength(1)
    expect(hub.storageRequests[0]!.authorization).toBeUndefined()
  })

  test('happens once; a new commit brings what has changed', async () => {
    await get()
    hub.requests.length = 0
    rmSync(join(cacheDir, '.locks'), { recursive: true })
    await get()
    expect(hub.downloads()).toEqual([])
    // A cache that is complete is not written to.
    expect(existsSync(join(cacheDir, '.locks'))).toBe(false)
    hub.add('config.json', config.replace('Llama', 'Mistral'))
    const old = hub.commit
    hub.commit = 'b'.repeat(40)
    const model = await get()
    expect(model.endsWith(hub.commit)).toBe(true)
    expect(hub.downloads()).toEqual(['config.json'])
    expect(readdirSync(model)).toHaveLength(4)
    expect(readdirSync(join(cacheDir, NAME, 'snapshots')).sort()).toEqual([old, hub.commit].sort())
    // A commit that is complete is never asked for.
    hub.requests.length = 0
    expect(await get({ revision: old })).toContain(old)
    expect(hub.requests).toEqual([])
  })

  test('of shards: the index first, then what it lists', async () => {
    hub.files.delete('model.safetensors')
    hub.add(
      'model.safetensors.index.json',
      JSON.stringify({ weight_map: { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' } }),
    )
    hub.add('model-00001-of-00002.safetensors', safetensors({ a: f32([1], 1) }), true)
    hub.add('model-00002-of-00002.safetensors', safetensors({ b: f32([1], 2) }), true)
    hub.add('consolidated.safetensors', noise(10), true)
    hub.add('pytorch_model.bin.index.json', '{}')
    const model = await get()
    expect(readdirSync(model).filter((n) => n.startsWith('model'))).toHaveLength(3)
    expect(readdirSync(model)).not.toContain('consolidated.safetensors')
    expect(readdirSync(model)).not.toContain('pytorch_model.bin.index.json')
    hub.files.delete('model-00002-of-00002.safetensors')
    hub.commit = 'c'.repeat(40)
    await expect(get()).rejects.toThrow(refused('HUB_NOT_FOUND', 'lacks model-00002-of-00002.safetensors'))
  })

  test('of chosen files', async () => {
    const model = await get({ allowPatterns: ['tok*.json', 'orig*/*.safetensors', 'README.md'] })
    expect(readdirSync(model).sort()).toEqual(['README.md', 'original', 'tokenizer.json'])
    expect(readlinkSync(join(model, 'original/consolidated.safetensors'))).toMatch(/^\.\.\/\.\.\/\.\.\/blobs\//)
    await expect(get({ allowPatterns: ['*.nothing'] })).rejects.toThrow(refused('HUB_NOT_FOUND', '*.nothing'))
  })

  test('of a long listing, page by page, and of empty files', async () => {
    hub.pageSize = 3
    hub.add('generation_config.json', '{}')
    hub.add('empty.json', '')
    const model = await get({ revision: 'v1' })
    expect(readFileSync(join(model, 'empty.json'), 'utf8')).toBe('')
    expect(existsSync(join(model, 'generation_config.json'))).toBe(true)
    expect(readFileSync(join(cacheDir, NAME, 'refs/v1'), 'utf8')).toBe(hub.commit)
  })

  test('twice at once downloads once', async () => {
    await Promise.all([get(), get(), get()])
    expect(hub.storageRequests).toHaveLength(1)
    expect(readFileSync(join(cacheDir, NAME, 'snapshots', hub.commit, 'model.safetensors')).equals(weights)).toBe(true)
  })

  test('whose place in the snapshot is taken by something stale', async () => {
    const model = await get()
    rmSync(join(model, 'config.json'))
    symlinkSync('../../blobs/gone', join(model, 'config.json'))
    rmSync(join(model, 'tokenizer.json'))
    writeFileSync(join(model, 'tokenizer.json'), 'stale')
    await get()
    expect(readFileSync(join(model, 'config.json'), 'utf8')).toBe(config)
    expect(readFileSync(join(model, 'tokenizer.json'), 'utf8')).toBe('{"model":{}}')
  })
})

describe('a connection that breaks', () => {
  test('is taken up again where it broke', async () => {
    let breaks = 3
    hub.storageHook = (request, response) => {
      if (breaks-- <= 0) return false
      breakAfter(response, request, weights, 70_000)
      return true
    }
    const model = await get()
    expect(readFileSync(join(model, 'model.safetensors')).equals(weights)).toBe(true)
    const starts = hub.storageRequests.map((r) => Number(/\d+/.exec(r.range ?? '0')?.[0]))
    expect(starts).toHaveLength(4)
    expect(starts[0]).toBe(0)
    for (let i = 1; i < 4; i++) expect(starts[i]).toBeGreaterThan(starts[i - 1]!)
  })

  test('for good is an error, and the next call goes on from there', async () => {
    hub.storageHook = (request, response) => {
      if (request.headers.range) response.destroy()
      else breakAfter(response, request, weights, 100_000)
      return true
    }
    await expect(get({ attempts: 2 })).rejects.toThrow(refused('HUB_NETWORK', 'cannot be reached'))
    expect(blobs().filter((n) => n.endsWith('.incomplete'))).toEqual([`${sha256(weights)}.incomplete`])
    const kept = readFileSync(join(cacheDir, NAME, 'blobs', `${sha256(weights)}.incomplete`)).length
    expect(kept).toBeGreaterThan(0)
    hub.storageHook = undefined
    hub.storageRequests.length = 0
    const progress: HubProgress[] = []
    const model = await get({ onProgress: (p) => progress.push(p) })
    expect(hub.storageRequests.map((r) => r.range)).toEqual([`bytes=${kept}-`])
    expect(progress.find((p) => p.file === 'model.safetensors')!.received).toBe(kept)
    expect(readFileSync(join(model, 'model.safetensors')).equals(weights)).toBe(true)
    expect(blobs().filter((n) => n.endsWith('.incomplete'))).toEqual([])
  })

  test('on a server without ranges starts again', async () => {
    hub.ranges = false
    let breaks = 1
    hub.storageHook = (_request, response) => {
      if (breaks-- <= 0) return false
      response.writeHead(200, { 'content-length': weights.length })
      response.write(weights.subarray(0, 50_000), () => setTimeout(() => response.destroy(), 20))
      return true
    }
    expect(readFileSync(join(await get(), 'model.safetensors')).equals(weights)).toBe(true)
  })

  test('by silence is taken up again too', async () => {
    let breaks = 1
    hub.storageHook = (request, response) => {
      if (breaks-- <= 0) return false
      breakAfter(response, request, weights, 50_000, true)
      return true
    }
    expect(readFileSync(join(await get({ timeoutMs: 150 }), 'model.safetensors')).equals(weights)).toBe(true)
  })

  test('by an overloaded hub is waited out', async () => {
    let busy = 2
    hub.hook = (_request, response) => {
      if (busy-- <= 0) return false
      refuse(response, busy === 1 ? 429 : 503)
      return true
    }
    await get()
    busy = 1000
    rmSync(cacheDir, { recursive: true })
    await expect(get({ attempts: 3 })).rejects.toThrow(refused('HUB_NETWORK', 'it answered 503'))
  })

  test('ends at once when it is aborted', async () => {
    const abort = new AbortController()
    hub.storageHook = (request, response) => {
      breakAfter(response, request, weights, 50_000, true)
      setTimeout(() => abort.abort(), 20)
      return true
    }
    const start = performance.now()
    await expect(get({ signal: abort.signal })).rejects.toThrow(/abort/i)
    expect(performance.now() - start).toBeLessThan(5_000)
  })
})

describe('what arrives wrong', () => {
  const incomplete = (): string => join(cacheDir, NAME, 'blobs', `${sha256(weights)}.incomplete`)

  test('a damaged file is refused, and forgotten', async () => {
    hub.storageHook = (_request, response) => {
      const damaged = Buffer.from(weights)
      damaged[1000]! ^= 1
      response.writeHead(200).end(damaged)
      return true
    }
    await expect(get()).rejects.toThrow(refused('HUB_INTEGRITY', 'model.safetensors of some-org/Tiny-1.0 arrived damaged'))
    expect(existsSync(join(cacheDir, NAME, 'snapshots', hub.commit, 'model.safetensors'))).toBe(false)
    hub.storageHook = undefined
    await get()
  })

  test('leftovers of something else are found out, longer ones thrown away', async () => {
    mkdirSync(join(cacheDir, NAME, 'blobs'), { recursive: true })
    writeFileSync(incomplete(), noise(1000))
    expect(readFileSync(join(await get(), 'model.safetensors')).equals(weights)).toBe(true)
    expect(hub.storageRequests.map((r) => r.range)).toEqual(['bytes=1000-', undefined])
    rmSync(cacheDir, { recursive: true })
    mkdirSync(join(cacheDir, NAME, 'blobs'), { recursive: true })
    writeFileSync(incomplete(), Buffer.alloc(weights.length + 5))
    await get()
    rmSync(cacheDir, { recursive: true })
    // All of it is there, only its name is missing.
    mkdirSync(join(cacheDir, NAME, 'blobs'), { recursive: true })
    writeFileSync(incomplete(), weights)
    hub.storageRequests.length = 0
    await get()
    expect(hub.storageRequests).toEqual([])
  })

  test('content that was cut short under its final name', async () => {
    const model = await get()
    writeFileSync(join(cacheDir, NAME, 'blobs', sha256(weights)), weights.subarray(0, 1000))
    await get()
    expect(readFileSync(join(model, 'model.safetensors')).equals(weights)).toBe(true)
  })

  test('another part than was asked for', async () => {
    mkdirSync(join(cacheDir, NAME, 'blobs'), { recursive: true })
    writeFileSync(incomplete(), weights.subarray(0, 1000))
    hub.storageHook = (request, response) => {
      if (!request.headers.range) return false
      response.writeHead(206, { 'content-range': `bytes 0-${weights.length - 1}/${weights.length}` }).end(weights)
      return true
    }
    expect(readFileSync(join(await get(), 'model.safetensors')).equals(weights)).toBe(true)
    expect(hub.storageRequests.map((r) => r.range)).toEqual(['bytes=1000-', undefined])
  })

  test('an answer that breaks off, or never comes', async () => {
    let breaks = 2
    hub.hook = (_request, response) => {
      if (breaks-- <= 0) return false
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': 1000 })
      response.write('{"sha":', () => breaks === 1 && response.destroy())
      return true
    }
    await get({ timeoutMs: 200 })
    expect(breaks).toBeLessThan(0)
  })

  test('more than was announced', async () => {
    hub.storageHook = (_request, response) => {
      response.writeHead(200).end(Buffer.concat([weights, Buffer.alloc(10)]))
      return true
    }
    await expect(get()).rejects.toThrow(refused('HUB_INTEGRITY', `more than the ${weights.length} bytes`))
  })

  test.each(['../evil.json', '/etc/evil.json', 'a/../../evil.json', 'C:\\evil.json', 'a\\..\\evil.json', 'x\0.json', './a.json'])(
    'the name %j',
    async (path) => {
      hub.relist = (list) => [...list, { type: 'file', path, size: 1, oid: 'a'.repeat(40) }]
      await expect(get({ allowPatterns: ['*'] })).rejects.toThrow(refused('HUB_INTEGRITY', 'no safe file name'))
      expect(existsSync(join(folder, 'evil.json'))).toBe(false)
    },
  )

  test.each([
    [
      'a hash that leads elsewhere',
      (list: Record<string, unknown>[]) => list.map((f) => ({ ...f, lfs: undefined, oid: '../../../evil' })),
      'HUB_INTEGRITY',
    ],
    ['no hash', (list: Record<string, unknown>[]) => list.map(({ oid: _, ...f }) => f), 'HUB_INTEGRITY'],
    ['a negative size', (list: Record<string, unknown>[]) => list.map((f) => ({ ...f, lfs: undefined, size: -1 })), 'HUB_NETWORK'],
    ['a size that is text', (list: Record<string, unknown>[]) => list.map((f) => ({ ...f, lfs: undefined, size: '1' })), 'HUB_NETWORK'],
    ['a list of nothing', () => [null as never], 'HUB_NETWORK'],
  ])('a listing with %s', async (_what, relist, code) => {
    hub.relist = relist
    await expect(get()).rejects.toThrow(refused(code))
  })

  test.each(['<html>login</html>', '', '[]', 'null', '{"sha":"../../x"}'])('an answer %j that is not the hub’s', async (body) => {
    hub.hook = (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/html' }).end(body)
      return true
    }
    await expect(get()).rejects.toThrow(refused('HUB_NETWORK', 'does not answer as a Hugging Face hub does'))
  })
})

describe('what the hub refuses', () => {
  test.each([
    [403, 'GatedRepo', undefined, 'HUB_ACCESS', 'is gated. Accept its terms at'],
    [401, 'GatedRepo', 'hf_x', 'HUB_ACCESS', 'is gated. Accept its terms at'],
    [401, undefined, undefined, 'HUB_ACCESS', 'Set HF_TOKEN to a token that may read it'],
    [401, undefined, 'hf_x', 'HUB_ACCESS', 'The token (HF_TOKEN) is not valid'],
    [403, undefined, 'anything', 'HUB_ACCESS', 'is not valid for it'],
    [401, 'RepoNotFound', undefined, 'HUB_NOT_FOUND', 'no model some-org/Tiny-1.0 at'],
    [404, 'RepoNotFound', 'hf_x', 'HUB_NOT_FOUND', 'that the token may read'],
    [404, undefined, undefined, 'HUB_NOT_FOUND', 'Check the spelling'],
    [400, undefined, undefined, 'HUB_NETWORK', 'answered 400'],
  ])('%i %s with the token %s', async (status, code, token, expected, message) => {
    hub.hook = (_request, response) => {
      refuse(response, status, code)
      return true
    }
    // Never the token of whoever runs the tests.
    await expect(get({ token: token ?? '' })).rejects.toThrow(refused(expected, message))
    expect(hub.requests).toHaveLength(1)
  })

  test('a gated file behind an open listing', async () => {
    hub.hook = (_request, response, path) => {
      if (!path.includes('/resolve/')) return false
      refuse(response, 403, 'GatedRepo')
      return true
    }
    await expect(get()).rejects.toThrow(refused('HUB_ACCESS', 'is gated'))
  })

  test('a revision that is not there', async () => {
    await expect(get({ revision: 'v9' })).rejects.toThrow(refused('HUB_NOT_FOUND', 'has no revision "v9"'))
  })

  test('a repository without safetensors, or without config.json', async () => {
    hub.files.delete('config.json')
    await expect(get()).rejects.toThrow(refused('HUB_NOT_FOUND', 'has no config.json'))
    hub.files.delete('model.safetensors')
    await expect(get()).rejects.toThrow(refused('HUB_NOT_FOUND', 'has no safetensors file, only pytorch_model.bin'))
  })
})

describe('without a network', () => {
  // A port that was somebody's a moment ago.
  let nowhere: string
  beforeEach(async () => {
    const gone = new FakeHub(ID)
    await gone.start()
    nowhere = gone.endpoint
    await gone.stop()
  })

  test('what was downloaded before is used; what was not is an error', async () => {
    const model = await get()
    const start = performance.now()
    expect(await get({ endpoint: nowhere, retryDelayMs: 10_000 })).toBe(model)
    expect(await get({ endpoint: nowhere, allowPatterns: ['tokenizer.json'] })).toBe(model)
    expect(performance.now() - start).toBeLessThan(5_000)
    await expect(get({ endpoint: nowhere, attempts: 2 }, 'other/model')).rejects.toThrow(
      refused('HUB_NETWORK', `${nowhere} cannot be reached for other/model`, 'ECONNREFUSED'),
    )
  })

  test('offline asks nobody', async () => {
    await expect(get({ offline: true })).rejects.toThrow(refused('HUB_OFFLINE', 'has not been downloaded'))
    expect(hub.requests).toEqual([])
    const model = await get()
    hub.requests.length = 0
    expect(await get({ offline: true })).toBe(model)
    expect(await get({ offline: true, revision: hub.commit })).toBe(model)
    rmSync(join(cacheDir, NAME, 'blobs', sha256(weights)))
    await expect(get({ offline: true })).rejects.toThrow(refused('HUB_OFFLINE', 'is not complete'))
    expect(await get({ offline: true, allowPatterns: ['tokenizer*'] })).toBe(model)
    expect(hub.requests).toEqual([])
  })
})

describe('a disk', () => {
  test('that is too small is said so before anything is downloaded', async () => {
    hub.relist = (list) =>
      list.map((f) => (f.path === 'model.safetensors' ? { ...f, size: 1e15, lfs: { ...(f.lfs as object), size: 1e15 } } : f))
    await expect(get()).rejects.toThrow(refused('HUB_DISK', 'needs 1000000.0 GB more in'))
    expect(hub.downloads()).toEqual([])
  })

  test.runIf(existsSync('/dev/full'))('that is full in the middle', async () => {
    mkdirSync(join(cacheDir, NAME, 'blobs'), { recursive: true })
    symlinkSync('/dev/full', join(cacheDir, NAME, 'blobs', `${sha256(weights)}.incomplete`))
    await expect(get()).rejects.toThrow(refused('HUB_DISK', 'the disk is full'))
  })

  test('that cannot be written', async () => {
    writeFileSync(cacheDir, 'a file where the cache should be')
    await expect(get()).rejects.toThrow(refused('HUB_DISK', 'cannot be written'))
  })
})

describe('what is asked for', () => {
  test('a folder wins over the hub', async () => {
    const local = join(folder, 'local')
    mkdirSync(local, { recursive: true })
    expect(await get({}, local)).toBe(local)
    writeFileSync(join(local, 'model.gguf'), '')
    await expect(get({}, join(local, 'model.gguf'))).rejects.toThrow(refused('MODEL_NOT_FOUND', 'is a file; give the folder'))
    expect(hub.requests).toEqual([])
  })

  test.each([
    './nothing',
    '/nothing/here',
    '../x',
    'a/b/c',
    'C:\\models\\x',
    '',
    'a b',
    'org/',
    'x'.repeat(97),
    'a--b/c',
    'org/name.git',
    '-x/y',
    'org/na\0me',
    'org/..',
  ])('%j is neither', async (id) => {
    await expect(get({}, id)).rejects.toThrow(refused('MODEL_NOT_FOUND', 'no folder', 'Check the path'))
    expect(hub.requests).toEqual([])
  })

  test('ids', () => {
    for (const id of ['gpt2', 'org/name', 'Qwen/Qwen3-0.6B', 'meta-llama/Llama-3.2-1B', '01-ai/Yi_6B']) expect(isHubId(id), id).toBe(true)
  })

  test.each(['', '../x', 'a//b', '/a', 'a b', 'x\0', '-x', 'a/../b', 'a/./b'])('the revision %j', async (revision) => {
    await expect(get({ revision })).rejects.toThrow(refused('LOADER_OPTION', 'cannot be a revision'))
  })

  test('misspelt options and endpoints', async () => {
    await expect(get({ tokn: 'x' } as never)).rejects.toThrow(refused('LOADER_OPTION', 'Did you mean "token"?'))
    await expect(get({ endpoint: 'huggingface.co' })).rejects.toThrow(refused('LOADER_OPTION', 'http(s) address'))
    await expect(get({ endpoint: 'file:///etc' })).rejects.toThrow(refused('LOADER_OPTION', 'http(s) address'))
  })

  test('a token that cannot be sent is not repeated', async () => {
    const error = await get({ token: 'hf_sec\nret' }).catch((e: Error) => e)
    expect(error).toEqual(refused('LOADER_OPTION', 'HF_TOKEN'))
    expect(String(error)).not.toContain('hf_sec')
    expect(hubSettings({ token: ' hf_a\n' }, {}).token).toBe('hf_a')
  })

  test('the environment', () => {
    const env = { HF_HOME: join(folder, 'home'), HF_ENDPOINT: 'https://mirror.example/', HF_TOKEN: 'hf_e', HF_HUB_OFFLINE: 'ON' }
    expect(hubSettings({}, env)).toMatchObject({
      cacheDir: join(folder, 'home/hub'),
      endpoint: 'https://mirror.example',
      token: 'hf_e',
      offline: true,
      revision: 'main',
    })
    expect(hubSettings({ token: 'hf_o', offline: false, cacheDir: '/c', endpoint: 'http://x' }, env)).toMatchObject({
      cacheDir: '/c',
      endpoint: 'http://x',
      token: 'hf_o',
      offline: false,
    })
    expect(hubSettings({}, { ...env, HF_HUB_CACHE: '/elsewhere' }).cacheDir).toBe('/elsewhere')
    expect(hubSettings({}, { XDG_CACHE_HOME: '/xdg' }).cacheDir).toBe('/xdg/huggingface/hub')
    mkdirSync(join(folder, 'home'), { recursive: true })
    writeFileSync(join(folder, 'home/token'), 'hf_stored\n')
    expect(hubSettings({}, { HF_HOME: join(folder, 'home'), HF_TOKEN: '', HF_ENDPOINT: '' })).toMatchObject({
      token: 'hf_stored',
      endpoint: 'https://huggingface.co',
    })
    expect(hubSettings({ token: '' }, env).token).toBeUndefined()
    expect(hubSettings({}, { HF_HOME: join(folder, 'nothing') }).token).toBeUndefined()
  })
})
