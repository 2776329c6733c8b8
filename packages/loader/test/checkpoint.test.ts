import { execFileSync } from 'node:child_process'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { type CheckpointProgress, openCheckpoint } from '../src/checkpoint.ts'
import { f32, fileOf, headerOf, safetensors, scratch, type Written } from './writer.ts'

const { folder, remove } = scratch()
afterAll(remove)
let count = 0

/** A folder of these files. Objects become safetensors files (of tensors) or JSON. */
function model(files: Record<string, Uint8Array | string | Record<string, Written>>): string {
  const directory = join(folder, `${count++}`)
  mkdirSync(directory)
  for (const [name, content] of Object.entries(files)) {
    const bytes = typeof content === 'string' || content instanceof Uint8Array ? content : safetensors(content)
    writeFileSync(join(directory, name), bytes)
  }
  return directory
}
const index = (weight_map: Record<string, unknown>, more: object = {}): string =>
  JSON.stringify({ metadata: { total_size: 1 }, weight_map, ...more })
const refused = (code: string, message: string) =>
  expect.objectContaining({ name: 'AphroditeError', code, message: expect.stringContaining(message) })

const a = f32([2, 2], 1, 2, 3, 4)
const b = f32([3], 5, 6, 7)
const S1 = 'model-00001-of-00002.safetensors'
const S2 = 'model-00002-of-00002.safetensors'

describe.each([{ mmap: true }, { mmap: false }])('$mmap', (options) => {
  test('one file', () => {
    const progress: CheckpointProgress[] = []
    const checkpoint = openCheckpoint(model({ 'model.safetensors': { a, b }, 'other.safetensors': 'not looked at' }), {
      ...options,
      onProgress: (p) => progress.push(p),
    })
    expect(checkpoint.files).toEqual(['model.safetensors'])
    expect([checkpoint.bytes, checkpoint.parameters]).toEqual([28, 7])
    expect(checkpoint.tensors).toEqual([
      { name: 'a', dtype: 'f32', shape: [2, 2], bytes: 16, file: 'model.safetensors' },
      { name: 'b', dtype: 'f32', shape: [3], bytes: 12, file: 'model.safetensors' },
    ])
    const seen = [...checkpoint].map(({ name, array }) => [name, [...new Float32Array(array.bytes.slice().buffer)]])
    expect(seen).toEqual([
      ['a', [1, 2, 3, 4]],
      ['b', [5, 6, 7]],
    ])
    expect(progress).toEqual([
      { name: 'a', loadedBytes: 16, totalBytes: 28 },
      { name: 'b', loadedBytes: 28, totalBytes: 28 },
    ])
    expect(checkpoint.has('b') && !checkpoint.has('c')).toBe(true)
    expect(checkpoint.get('b').shape).toEqual([3])
    expect(() => checkpoint.get('c')).toThrow(refused('CHECKPOINT_TENSOR', 'has no tensor "c"'))
    checkpoint.close()
    checkpoint.close()
    expect(() => [...checkpoint]).toThrow(refused('CHECKPOINT_CLOSED', 'was closed'))
  })

  test('shards of an index, in the order of disk; what the index does not list is there too', () => {
    const checkpoint = openCheckpoint(
      model({
        'model.safetensors.index.json': index({ z: S1, a: S2, b: S1 }, { extra: [1, { x: null }] }),
        [S1]: { z: b, b, unlisted: a },
        [S2]: { a },
        'stray.safetensors': 'not looked at',
      }),
      options,
    )
    expect([...checkpoint].map((t) => t.name)).toEqual(['z', 'b', 'unlisted', 'a'])
    expect(checkpoint.files).toEqual([S1, S2])
    expect(checkpoint.tensors.map((t) => t.file)).toEqual([S1, S1, S1, S2])
    checkpoint.close()
  })
})

test('any safetensors files, without the same weights under other names', () => {
  const names = (files: Record<string, Record<string, Written>>) => {
    const checkpoint = openCheckpoint(model(files))
    checkpoint.close()
    return checkpoint.files
  }
  expect(names({ 'weights.safetensors': { a }, 'consolidated.safetensors': { a }, 'adapter_model.safetensors': { b } })).toEqual([
    'weights.safetensors',
  ])
  expect(names({ [S2]: { b }, [S1]: { a } })).toEqual([S1, S2])
  expect(names({ 'consolidated.safetensors': { a } })).toEqual(['consolidated.safetensors'])
})

describe('refused by name:', () => {
  const I = 'model.safetensors.index.json'
  const cases: [string, Record<string, Uint8Array | string | Record<string, Written>>, string, string][] = [
    ['an empty folder', {}, 'CHECKPOINT_NOT_FOUND', 'has no safetensors file. Give a folder with model.safetensors.'],
    ['a folder with other formats', { 'pytorch_model.bin': '' }, 'CHECKPOINT_NOT_FOUND', 'It has pytorch_model.bin: convert that'],
    ['a missing shard', { [I]: index({ a: S1, b: S2 }), [S1]: { a } }, 'CHECKPOINT_SHARD', `lacks ${S2}`],
    ['a missing shard without an index', { [S1]: { a } }, 'CHECKPOINT_SHARD', `lacks ${S2}`],
    ['a hundred thousand missing shards', { 'm-00001-of-99999.safetensors': { a } }, 'CHECKPOINT_SHARD', 'and 5 more'],
    ['a tensor not in its shard', { [I]: index({ a: S1, b: S1 }), [S1]: { a } }, 'CHECKPOINT_SHARD', `"b" in ${S1}`],
    ['a tensor in another shard', { [I]: index({ a: S2, b: S1 }), [S1]: { a, b }, [S2]: { c: a } }, 'CHECKPOINT_SHARD', `"a" in ${S2}`],
    ['a tensor in two shards', { [I]: index({ a: S1, b: S2 }), [S1]: { a, b }, [S2]: { b } }, 'CHECKPOINT_DUPLICATE', '"b" is both in'],
    ['a tensor in two files', { [S1]: { a }, [S2]: { a } }, 'CHECKPOINT_DUPLICATE', '"a" is both in'],
    ['a shard in another folder', { [I]: index({ a: '../0/model.safetensors' }) }, 'CHECKPOINT_INDEX', '"a" into "../0/model.safetensors"'],
    ['a shard anywhere', { [I]: index({ a: '/etc/x.safetensors' }) }, 'CHECKPOINT_INDEX', 'not the plain name'],
    ['a shard in a folder inside', { [I]: index({ a: 'x/y.safetensors' }) }, 'CHECKPOINT_INDEX', 'not the plain name'],
    ['a shard of another format', { [I]: index({ a: 'x.bin' }) }, 'CHECKPOINT_INDEX', 'not the plain name'],
    ['a hidden shard', { [I]: index({ a: '..safetensors' }) }, 'CHECKPOINT_INDEX', 'not the plain name'],
    ['a shard with a strange name', { [I]: index({ a: 'a\0.safetensors' }) }, 'CHECKPOINT_INDEX', 'not the plain name'],
    ['an index that is no JSON', { [I]: '{"weight_map": {"a": ' }, 'CHECKPOINT_INDEX', 'line 1, column 22'],
    ['an index that is a list', { [I]: '[]' }, 'CHECKPOINT_INDEX', 'should have "{"'],
    ['an index without a map', { [I]: '{"metadata":{}}' }, 'CHECKPOINT_INDEX', 'has no weight_map'],
    ['an index with an empty map', { [I]: index({}) }, 'CHECKPOINT_INDEX', 'has no weight_map'],
    ['an index with numbers', { [I]: index({ a: 1 }) }, 'CHECKPOINT_INDEX', 'a string in quotes'],
    ['an index with a name twice', { [I]: `{"weight_map":{"a":"${S1}","a":"${S2}"}}` }, 'CHECKPOINT_INDEX', '"a" is there twice'],
    ['a deep index', { [I]: `{"metadata":${'['.repeat(1e5)}` }, 'CHECKPOINT_INDEX', 'nested more than'],
    [
      'a shard that is cut off',
      { [I]: index({ a: S1 }), [S1]: safetensors({ a }).subarray(0, -1) },
      'CHECKPOINT_TRUNCATED',
      `${S1}: tensor "a" ends`,
    ],
    ['a shard that lies', { [S1]: { a }, [S2]: fileOf(JSON.stringify(headerOf({ b })), new Uint8Array(5)) }, 'CHECKPOINT_TRUNCATED', S2],
  ]
  test.each(cases)('%s', (_what, files, code, message) => {
    expect(() => openCheckpoint(model(files))).toThrow(refused(code, message))
  })

  test('no folder, a file, misspelt options', () => {
    expect(() => openCheckpoint(join(folder, 'nowhere'))).toThrow(refused('CHECKPOINT_NOT_FOUND', 'nowhere does not exist'))
    const file = join(folder, 'file')
    writeFileSync(file, '')
    expect(() => openCheckpoint(file)).toThrow(refused('CHECKPOINT_NOT_FOUND', 'is not a folder'))
    expect(() => openCheckpoint(folder, { onprogress: () => {} } as never)).toThrow(refused('LOADER_OPTION', 'Did you mean "onProgress"?'))
  })

  test('an index that is a pipe, a folder, a link to nowhere', () => {
    const [pipe, sub, link] = [model({}), model({}), model({})]
    execFileSync('mkfifo', [join(pipe, I)])
    mkdirSync(join(sub, I))
    symlinkSync('nowhere', join(link, I))
    for (const directory of [pipe, sub]) expect(() => openCheckpoint(directory)).toThrow(refused('CHECKPOINT_INDEX', 'is not a file'))
    expect(() => openCheckpoint(link)).toThrow(refused('CHECKPOINT_INDEX', 'Is the download complete?'))
    expect(() => openCheckpoint('a\0b')).toThrow(refused('CHECKPOINT_NOT_FOUND', 'cannot be read'))
  })

  test('without leaving files open', () => {
    const directory = model({ [S1]: { a }, [S2]: new Uint8Array(5) })
    for (let i = 0; i < 3000; i++) expect(() => openCheckpoint(directory)).toThrow(refused('CHECKPOINT_TRUNCATED', S2))
  })
})
