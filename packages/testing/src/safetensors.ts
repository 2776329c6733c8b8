import { readFileSync, writeFileSync } from 'node:fs'
import { contiguousStrides, type DType, type HostArray, product, sizeOf } from '@aphrodite/tensor'
import { testingError } from './errors.ts'

const NAMES: Readonly<Partial<Record<DType, string>>> = {
  f64: 'F64',
  f32: 'F32',
  f16: 'F16',
  bf16: 'BF16',
  f8e4m3: 'F8_E4M3',
  f8e5m2: 'F8_E5M2',
  i64: 'I64',
  i32: 'I32',
  i16: 'I16',
  i8: 'I8',
  u64: 'U64',
  u32: 'U32',
  u16: 'U16',
  u8: 'U8',
  bool: 'BOOL',
}

/** A row-major array to be written. */
export interface FileTensor {
  readonly dtype: DType
  readonly shape: readonly number[]
  readonly bytes: Uint8Array
}

/**
 * Writes a safetensors file: the length of the header as u64, the header as JSON padded with spaces to 8 bytes, the data in
 * the order given. Throws BAD_CHECKPOINT where a tensor's bytes do not fit its shape.
 */
export function writeSafetensors(
  path: string,
  tensors: Readonly<Record<string, FileTensor>>,
  metadata?: Readonly<Record<string, string>>,
): void {
  const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {}
  let end = 0
  for (const [name, { dtype, shape, bytes }] of Object.entries(tensors)) {
    const size = product(shape) * sizeOf(dtype)
    if (bytes.byteLength !== size)
      throw testingError('BAD_CHECKPOINT', `${name}: ${bytes.byteLength} bytes for ${dtype} [${shape}], which takes ${size}`)
    header[name] = { dtype: NAMES[dtype], shape, data_offsets: [end, end + size] }
    end += size
  }
  const json = Buffer.from(JSON.stringify(header))
  const padded = Buffer.alloc(Math.ceil(json.length / 8) * 8, ' ')
  json.copy(padded)
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(padded.length))
  writeFileSync(path, Buffer.concat([length, padded, ...Object.values(tensors).map((t) => t.bytes)]))
}

/** All tensors of a well-formed safetensors file, for checks; the loader is what reads files from strangers. */
export function readSafetensors(path: string): Record<string, HostArray> {
  const file = readFileSync(path)
  const start = 8 + Number(file.readBigUInt64LE(0))
  const header = JSON.parse(file.toString('utf8', 8, start)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >
  const dtypes = Object.fromEntries(Object.entries(NAMES).map(([dtype, name]) => [name, dtype])) as Record<string, DType>
  return Object.fromEntries(
    Object.entries(header)
      .filter(([name]) => name !== '__metadata__')
      .map(
        ([
          name,
          {
            dtype,
            shape,
            data_offsets: [from, to],
          },
        ]) => {
          const bytes = new Uint8Array(file.subarray(start + from, start + to))
          return [name, { bytes, dtype: dtypes[dtype]!, shape, strides: contiguousStrides(shape) }]
        },
      ),
  )
}
