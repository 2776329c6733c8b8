import { openSafetensors } from '@aphrodite/loader'
import { llmError } from './errors.ts'

/** The tensors of a small safetensors file, as typed arrays of their own. */
export interface NamedTensors {
  has(name: string): boolean
  /** i32 or i64, as numbers. Throws BAD_REFERENCE when it is not there. */
  ints(name: string): number[]
  /** f32. */
  floats(name: string): Float32Array
}

export function readTensors(path: string): NamedTensors {
  const file = openSafetensors(path)
  const dtypes = new Map(file.tensors.map(({ name, dtype }) => [name, dtype]))
  const bytesOf = (name: string, ...allowed: string[]): ArrayBuffer => {
    const dtype = dtypes.get(name)
    if (dtype === undefined)
      throw llmError('BAD_REFERENCE', `${path} has no tensor ${name}; it has ${[...dtypes.keys()].slice(0, 8).join(', ')}`)
    if (!allowed.includes(dtype)) throw llmError('BAD_REFERENCE', `${path}: ${name} is ${dtype}, should be ${allowed.join(' or ')}`)
    return file.get(name).bytes.slice().buffer as ArrayBuffer
  }
  return {
    has: (name) => dtypes.has(name),
    ints: (name) =>
      dtypes.get(name) === 'i64' ? [...new BigInt64Array(bytesOf(name, 'i64'))].map(Number) : [...new Int32Array(bytesOf(name, 'i32'))],
    floats: (name) => new Float32Array(bytesOf(name, 'f32')),
  }
}
