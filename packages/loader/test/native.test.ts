import { constants } from 'node:buffer'
import { spawnSync } from 'node:child_process'
import { closeSync, ftruncateSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { constants as system } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { loadNative } from '../src/native.ts'
import { scratch } from './writer.ts'

const native = loadNative()!
const { folder, remove } = scratch()
afterAll(remove)

const content = Buffer.from(Array.from({ length: 50_000 }, (_, i) => i % 251))
const path = join(folder, 'content')
writeFileSync(path, content)

/** How often this process has the file mapped. */
const mapped = (): number => readFileSync('/proc/self/maps', 'utf8').split(path).length - 1

test('maps, and unmaps at once', () => {
  const fd = openSync(path, 'r')
  const buffer = native.map(fd, 0, content.length)
  closeSync(fd)
  const view = new Uint8Array(buffer, 1000, 40_000)
  expect(Buffer.from(view).equals(content.subarray(1000, 41_000))).toBe(true)
  expect(mapped()).toBe(1)
  expect(native.unmap(buffer)).toBe(true)
  expect([mapped(), view.length, buffer.byteLength]).toEqual([0, 0, 0])
  expect(native.unmap(buffer)).toBe(false)
})

test('maps a part, and refuses more than an array of Node can hold, for good', () => {
  const fd = openSync(path, 'r')
  const buffer = native.map(fd, 8192, 1000)
  expect(Buffer.from(buffer).equals(content.subarray(8192, 9192))).toBe(true)
  native.unmap(buffer)
  if (constants.MAX_LENGTH < 2 ** 40) {
    for (let i = 0; i < 20; i++) expect(() => native.map(fd, 0, 2 ** 40)).toThrow()
    expect(() => native.repeat!(new Uint8Array(1 << 20), constants.MAX_LENGTH + 1)).toThrow()
  }
  expect(mapped()).toBe(0)
  closeSync(fd)
})

test('says what would have ended the process', () => {
  const shrinking = join(folder, 'shrinking')
  writeFileSync(shrinking, content)
  const fd = openSync(shrinking, 'r+')
  const buffer = native.map(fd, 0, content.length)
  expect(native.populate!(buffer, 0, content.length)).toBe(0)
  expect(native.populate!(buffer, 4097, 1)).toBe(0)
  ftruncateSync(fd, 100)
  expect(native.populate!(buffer, 0, content.length)).toBe(system.errno.EFAULT)
  expect(native.populate!(buffer, 0, 100)).toBe(0)
  expect(native.willNeed(buffer, 0, content.length)).toBe(0)
  native.unmap(buffer)
  closeSync(fd)
})

test('a pattern repeats, at the cost of one', () => {
  const unit = new Uint8Array(3 * 4096).map((_, i) => (i * 7) % 256)
  const before = process.memoryUsage().rss
  const buffer = native.repeat!(unit, 300_000_007)
  const view = new Uint8Array(buffer)
  expect(view.length).toBe(300_000_007)
  for (const at of [0, 12_287, 12_288, 24_576, 300_000_006]) expect(view[at]).toBe(unit[at % unit.length])
  expect(process.memoryUsage().rss - before).toBeLessThan(50e6)
  // Whoever writes to it changes that place alone.
  view[5] = 99
  expect([view[5], view[5 + unit.length]]).toEqual([99, unit[5]])
  native.unmap(buffer)
})

test('locks exclude each other until the descriptor is closed', () => {
  const a = openSync(path, 'r')
  const b = openSync(path, 'r')
  expect(native.tryLock(a)).toBe(true)
  expect(native.tryLock(b)).toBe(false)
  closeSync(a)
  expect(native.tryLock(b)).toBe(true)
  closeSync(b)
})

describe('what it is not made for is an exception', () => {
  const strange: [string, () => unknown][] = [
    ['no arguments', () => (native.map as () => unknown)()],
    ['no file', () => native.map(12345, 0, 10)],
    ['no bytes', () => native.map(0, 0, 0)],
    ['half a byte', () => native.map(0, 0, 0.5)],
    ['fewer than no bytes', () => native.map(0, 0, -1)],
    ['more than there is', () => native.map(openSync(path, 'r'), 0, 2 ** 53 - 1)],
    ['an offset within a page', () => native.map(openSync(path, 'r'), 100, 10)],
    ['NaN', () => native.map(0, 0, Number.NaN)],
    ['unmap of text', () => native.unmap('x' as never)],
    ['advice for a buffer of somebody else', () => native.willNeed(new ArrayBuffer(10), 0, 10)],
    ['a pattern of half a page', () => native.repeat!(new Uint8Array(2048), 10)],
    ['a pattern of nothing', () => native.repeat!(new Uint8Array(0), 10)],
    ['a pattern that is none', () => native.repeat!([] as never, 10)],
    ['a lock on nothing', () => native.tryLock(12345)],
  ]
  test.each(strange)('%s', (_what, call) => {
    expect(call).toThrow(Error)
  })

  test('and a buffer of somebody else is left alone', () => {
    const own = new ArrayBuffer(10)
    expect(native.unmap(own)).toBe(false)
    expect(own.byteLength).toBe(10)
    const buffer = native.map(openSync(path, 'r'), 0, 1000)
    expect(() => native.populate!(buffer, 999, 2)).toThrow('outside the mapping')
    expect(() => native.populate!(buffer, 2 ** 52, 2 ** 52)).toThrow('outside the mapping')
    native.unmap(buffer)
  })
})

/** Runs a script with the addon in a process of its own; its standard output. */
function isolated(script: string, ...flags: string[]): string {
  const addon = fileURLToPath(new URL('../prebuilt/loader.node', import.meta.url))
  const prelude = `const fs = require('fs'); const path = ${JSON.stringify(path)}; const native = require(${JSON.stringify(addon)});`
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [...flags, '-e', prelude + script], { encoding: 'utf8' })
  expect([status, signal, stderr]).toEqual([0, null, ''])
  return stdout.trim()
}

test('what is no longer reachable is unmapped by the collector, once', () => {
  const script = `
    const fd = fs.openSync(path);
    const maps = () => fs.readFileSync('/proc/self/maps', 'utf8').split(path).length - 1;
    let most = 0;
    for (let i = 0; i < 3000; i++) {
      const buffer = native.map(fd, 0, 50000);
      if (new Uint8Array(buffer)[7] !== 7) throw new Error('wrong');
      if (i % 3 === 0) native.unmap(buffer);
      if (i % 100 === 0) { gc(); most = Math.max(most, maps()); }
    }
    gc();
    setTimeout(() => { gc(); setTimeout(() => console.log(maps()), 20); }, 20);`
  expect(isolated(script, '--expose-gc')).toBe('0')
})

test('threads come and go with mappings of their own', () => {
  const script = `
    const { Worker } = require('worker_threads');
    const work = "const fs = require('fs'); const { workerData: [path, addon] } = require('worker_threads');" +
      "const native = require(addon); const fd = fs.openSync(path); globalThis.kept = [];" +
      "for (let i = 0; i < 50; i++) { const b = native.map(fd, 0, 50000); if (i % 2) native.unmap(b); else kept.push(b); }";
    const addon = Object.keys(require.cache).find((name) => name.endsWith('.node'));
    let left = 8;
    for (let i = 0; i < 8; i++) new Worker(work, { eval: true, workerData: [path, addon] }).on('exit', (code) => {
      if (code) throw new Error('a worker failed');
      if (--left === 0) console.log(fs.readFileSync('/proc/self/maps', 'utf8').split(path).length - 1);
    });`
  expect(isolated(script)).toBe('0')
})
