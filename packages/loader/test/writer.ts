// A few lines that write the format, so that tests can write it wrongly too.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface Written {
  readonly dtype: string
  readonly shape: readonly number[]
  readonly data: Uint8Array
}

/** A header's JSON for these tensors, laid one after the other. */
export function headerOf(tensors: Readonly<Record<string, Written>>): Record<string, unknown> {
  let end = 0
  const entries = Object.entries(tensors).map(([name, { dtype, shape, data }]) => {
    const begin = end
    end += data.length
    return [name, { dtype, shape, data_offsets: [begin, end] }]
  })
  return Object.fromEntries(entries)
}

/** Any header text before any data. */
export function fileOf(header: string | Uint8Array, data: Uint8Array, declared?: bigint): Uint8Array {
  const text = typeof header === 'string' ? Buffer.from(header) : header
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(declared ?? BigInt(text.length))
  return Buffer.concat([length, text, data])
}

export function safetensors(tensors: Readonly<Record<string, Written>>, metadata?: Record<string, string>): Uint8Array {
  const header = { ...(metadata ? { __metadata__: metadata } : {}), ...headerOf(tensors) }
  const text = JSON.stringify(header)
  return fileOf(
    text.padEnd(Math.ceil(Buffer.byteLength(text) / 8) * 8 + text.length - Buffer.byteLength(text)),
    Buffer.concat(Object.values(tensors).map((t) => t.data)),
  )
}

export const f32 = (shape: readonly number[], ...values: number[]): Written => ({
  dtype: 'F32',
  shape,
  data: new Uint8Array(new Float32Array(values).buffer),
})

/** A folder for one test file, and how to remove it. */
export function scratch(): { folder: string; remove: () => void } {
  const folder = mkdtempSync(join(tmpdir(), 'loader-'))
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) }
}

/** Seeded numbers in [0, 1). */
export function random(seed: number): () => number {
  let x = Math.imul(seed + 1, 0x9e3779b1) | 1
  return () => {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    return (x >>> 0) / 2 ** 32
  }
}
