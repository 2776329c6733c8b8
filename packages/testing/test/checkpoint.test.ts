import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { randomCheckpoint, readSafetensors, writeSafetensors } from '../src/index.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'checkpoint-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

describe('writeSafetensors', () => {
  it('writes the bytes that the format prescribes', () => {
    const path = join(dir, 'a.safetensors')
    const bytes = new Uint8Array(new Uint16Array([0x3f80, 0x4000]).buffer)
    writeSafetensors(path, { w: { dtype: 'bf16', shape: [2], bytes } }, { format: 'pt' })
    const file = readFileSync(path)
    const length = Number(file.readBigUInt64LE(0))
    expect(length % 8).toBe(0)
    expect(JSON.parse(file.toString('utf8', 8, 8 + length))).toEqual({
      __metadata__: { format: 'pt' },
      w: { dtype: 'BF16', shape: [2], data_offsets: [0, 4] },
    })
    expect([...file.subarray(8 + length)]).toEqual([0x80, 0x3f, 0x00, 0x40])
  })
  it('refuses bytes that do not fit the shape', () => {
    const tensor = { dtype: 'f32', shape: [3], bytes: new Uint8Array(8) } as const
    expect(() => writeSafetensors(join(dir, 'a'), { w: tensor })).toThrow(/w: 8 bytes for f32 \[3\]/)
  })
})

describe('randomCheckpoint', () => {
  const tensors = {
    'model.embed_tokens.weight': { shape: [10, 4] },
    'model.norm.weight': { shape: [4], mean: 1, dtype: 'f32' },
    'lm_head.weight': { shape: [10, 4], dtype: 'f16' },
  } as const
  it('writes one file, the same for the same seed', () => {
    const options = { config: { model_type: 'test' }, tensors, seed: 5 }
    randomCheckpoint(join(dir, 'a'), options)
    randomCheckpoint(join(dir, 'b'), options)
    randomCheckpoint(join(dir, 'c'), { ...options, seed: 6 })
    const [a, b, c] = ['a', 'b', 'c'].map((d) => readFileSync(join(dir, d, 'model.safetensors')))
    expect(a!.equals(b!)).toBe(true)
    expect(a!.equals(c!)).toBe(false)
    expect(JSON.parse(readFileSync(join(dir, 'a', 'config.json'), 'utf8'))).toEqual({ model_type: 'test' })
    const read = readSafetensors(join(dir, 'a', 'model.safetensors'))
    expect(Object.keys(read)).toEqual(Object.keys(tensors))
    const norm = new Float32Array(read['model.norm.weight']!.bytes.buffer)
    for (const v of norm) expect(Math.abs(v - 1)).toBeLessThan(0.6)
  })
  it('writes shards and an index that names each tensor once', () => {
    randomCheckpoint(dir, { config: {}, tensors, seed: 5, shards: 2 })
    const index = JSON.parse(readFileSync(join(dir, 'model.safetensors.index.json'), 'utf8')) as { weight_map: Record<string, string> }
    expect(Object.keys(index.weight_map).sort()).toEqual(Object.keys(tensors).sort())
    for (const [name, file] of Object.entries(index.weight_map)) expect(readSafetensors(join(dir, file))).toHaveProperty([name])
    expect(new Set(Object.values(index.weight_map)).size).toBe(2)
  })
})
