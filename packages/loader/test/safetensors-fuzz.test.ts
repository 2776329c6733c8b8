import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { AphroditeError, product, sizeOf } from '@aphrodite/tensor'
import { afterAll, expect, test } from 'vitest'
import { openSafetensors, SafetensorsFile } from '../src/safetensors.ts'
import { memoryFile } from './memory-file.ts'
import { Mutator } from './mutations.ts'
import { f32, fileOf, headerOf, safetensors, scratch, type Written } from './writer.ts'

const { folder, remove } = scratch()
afterAll(remove)

const u8 = (shape: number[], n: number): Written => ({ dtype: 'U8', shape, data: new Uint8Array(n).fill(7) })
const tensors: Record<string, Written> = {
  'model.embed_tokens.weight': f32([3, 2], 1, 2, 3, 4, 5, 6),
  empty: u8([0, 5], 0),
  scalar: f32([], 7),
  'layers.0.w': { dtype: 'BF16', shape: [2, 2], data: new Uint8Array(8) },
  b: u8([5], 5),
  é: { dtype: 'I64', shape: [1], data: new Uint8Array(8) },
}
const data = Buffer.concat(Object.values(tensors).map((t) => t.data))
const header = JSON.stringify({ __metadata__: { format: 'pt', 'a "b"': '\n' }, ...headerOf(tensors) })
const whole = safetensors(tensors, { format: 'pt' })

function mutated(m: Mutator): Uint8Array {
  if (m.below(4) === 0) {
    let bytes = whole
    for (let i = m.below(3); i >= 0; i--) bytes = m.bytes(bytes)
    return bytes
  }
  let text = header
  for (let i = m.below(4); i >= 0; i--) text = m.text(text)
  // The length mostly tells the truth, or nothing behind it would ever be looked at.
  const lie = m.below(20) === 0
  const file = fileOf(text, data, lie ? m.pick([0n, 1n, 7n, 1n << 31n, 1n << 60n, (1n << 64n) - 1n, BigInt(m.below(2000))]) : undefined)
  return m.below(10) === 0 ? m.bytes(file) : file
}

/** Looks at everything that the file claims to have. */
function look(file: SafetensorsFile): void {
  for (const { array } of file) {
    expect(array.bytes.length).toBe(product(array.shape) * sizeOf(array.dtype))
    if (array.bytes.length > 0) expect(array.bytes[0]! + array.bytes[array.bytes.length - 1]!).toBeGreaterThanOrEqual(0)
  }
}

/** True: read; false: refused with a proper error. */
function attempt(read: () => SafetensorsFile): boolean {
  let file: SafetensorsFile | undefined
  try {
    file = read()
    look(file)
    return true
  } catch (error) {
    if (!(error instanceof AphroditeError && error.code.startsWith('CHECKPOINT_'))) throw error
    expect(error.message.length).toBeLessThan(1000)
    return false
  } finally {
    file?.close()
  }
}

test('10^5 damaged files are read or refused, nothing else', { timeout: 60_000 }, () => {
  const m = new Mutator(1)
  let read = 0
  let slowest = 0
  for (let i = 0; i < 100_000; i++) {
    const bytes = mutated(m)
    const start = performance.now()
    if (attempt(() => new SafetensorsFile(memoryFile(bytes)))) {
      read++
      // What is read accounts for every byte.
      const file = new SafetensorsFile(memoryFile(bytes))
      const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true))
      expect(file.tensors.reduce((sum, t) => sum + t.bytes, 0)).toBe(bytes.length - 8 - length)
    }
    slowest = Math.max(slowest, performance.now() - start)
  }
  // The mutations are neither harmless nor all fatal.
  expect(read).toBeGreaterThan(500)
  expect(read).toBeLessThan(50_000)
  expect(slowest).toBeLessThan(5_000)
})

for (const mmap of [true, false]) {
  test(`500 damaged files on disk, mmap: ${mmap}`, () => {
    const m = new Mutator(2)
    const path = join(folder, `fuzz-${mmap}.safetensors`)
    let read = 0
    for (let i = 0; i < 500; i++) {
      writeFileSync(path, mutated(m))
      if (attempt(() => openSafetensors(path, { mmap }))) read++
    }
    expect(read).toBeGreaterThan(5)
    expect(read).toBeLessThan(450)
  })
}
