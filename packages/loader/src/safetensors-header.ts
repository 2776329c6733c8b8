import { type DType, sizeOf } from '@aphrodite/tensor'
import { type LoaderErrorCode, loaderError } from './errors.ts'
import type { FileBytes } from './file-bytes.ts'
import { JsonError, JsonReader, quote, STRICT_JSON } from './json-reader.ts'

// A safetensors file: a little-endian u64, the length of the header; the header, a JSON object that gives each tensor's
// dtype, shape and place ([begin, end) in bytes from the end of the header) and may have strings under __metadata__; the
// data, in which every byte belongs to exactly one tensor.

/** What a header says of one tensor, checked. */
export interface TensorEntry {
  readonly name: string
  readonly dtype: DType
  readonly shape: readonly number[]
  /** From the start of the file. */
  readonly offset: number
  readonly bytes: number
}

export interface SafetensorsHeader {
  /** In the order of the file. */
  readonly tensors: readonly TensorEntry[]
  readonly metadata: Readonly<Record<string, string>>
}

const DTYPES: ReadonlyMap<string, DType> = new Map([
  ['F64', 'f64'],
  ['F32', 'f32'],
  ['F16', 'f16'],
  ['BF16', 'bf16'],
  ['F8_E4M3', 'f8e4m3'],
  ['F8_E5M2', 'f8e5m2'],
  ['I64', 'i64'],
  ['I32', 'i32'],
  ['I16', 'i16'],
  ['I8', 'i8'],
  ['U64', 'u64'],
  ['U32', 'u32'],
  ['U16', 'u16'],
  ['U8', 'u8'],
  ['BOOL', 'bool'],
])

const LENGTH_BYTES = 8
/** The format's own limit. */
const LONGEST_HEADER = 100_000_000
/** What the libraries that write these files can have. */
const MOST_DIMENSIONS = 64

/** Reads and checks the header. Nothing is allocated or looked at beyond what the file's own size allows. */
export function readSafetensorsHeader(file: FileBytes): SafetensorsHeader {
  const fail = (code: LoaderErrorCode, message: string): Error =>
    loaderError(code, `${file.path}: ${message} Download the file again, or write it again with the safetensors library.`)

  const start = file.read(0, Math.min(file.size, 64))
  if (file.size < LENGTH_BYTES) throw fail('CHECKPOINT_TRUNCATED', `has only ${file.size} bytes, too few for a safetensors file.`)
  const other = otherFormat(start)
  if (other) throw loaderError('CHECKPOINT_HEADER', `${file.path} is ${other}`)
  const declared = new DataView(start.buffer, start.byteOffset, start.byteLength).getBigUint64(0, true)
  if (declared > LONGEST_HEADER) {
    throw fail('CHECKPOINT_HEADER', `says that its header has ${declared} bytes; ${LONGEST_HEADER} is the most. It is no safetensors file.`)
  }
  const dataStart = LENGTH_BYTES + Number(declared)
  if (dataStart > file.size) {
    throw fail('CHECKPOINT_TRUNCATED', `ends inside its header: ${file.size} bytes, the header alone needs ${dataStart}.`)
  }
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(file.read(LENGTH_BYTES, Number(declared)))
  } catch (error) {
    if (error instanceof TypeError) throw fail('CHECKPOINT_HEADER', 'its header is not UTF-8.')
    throw error
  }
  let header: { tensors: TensorEntry[]; metadata: Record<string, string> }
  try {
    header = parse(text, dataStart)
  } catch (error) {
    if (error instanceof JsonError)
      throw fail('CHECKPOINT_HEADER', `its header is wrong at character ${error.column} of line ${error.line}: ${error.message}.`)
    if (error instanceof TensorLie) throw fail('CHECKPOINT_TENSOR', `tensor ${quote(error.tensor)} ${error.message}.`)
    throw error
  }
  checkPlaces(header.tensors, dataStart, file.size, fail)
  return header
}

/** What a header says of a tensor and cannot be. */
class TensorLie extends Error {
  readonly tensor: string
  constructor(tensor: string, message: string) {
    super(message)
    this.tensor = tensor
  }
}

function parse(text: string, dataStart: number): { tensors: TensorEntry[]; metadata: Record<string, string> } {
  const tensors: TensorEntry[] = []
  const metadata: [string, string][] = []
  const reader = new JsonReader(text, STRICT_JSON)
  if (!text.startsWith('{')) throw reader.error('should start with "{"', 0)
  reader.object((name) => {
    if (name !== '__metadata__') tensors.push(tensorEntry(reader, name, dataStart))
    else if (!reader.null()) reader.object((key) => metadata.push([key, reader.string()]))
  })
  reader.end()
  return { tensors, metadata: Object.fromEntries(metadata) }
}

function tensorEntry(reader: JsonReader, name: string, dataStart: number): TensorEntry {
  let dtype: DType | undefined
  let shape: number[] | undefined
  let offsets: number[] | undefined
  reader.object((key) => {
    if (key === 'dtype') dtype = knownDType(name, reader.string())
    else if (key === 'shape')
      shape = naturals(reader, MOST_DIMENSIONS, () => new TensorLie(name, `has more than ${MOST_DIMENSIONS} dimensions`))
    else if (key === 'data_offsets') offsets = naturals(reader, 2, () => new TensorLie(name, 'has more than two data_offsets'))
    else throw new TensorLie(name, `has ${quote(key)}, which is none of dtype, shape and data_offsets`)
  })
  if (!dtype) throw new TensorLie(name, 'has no dtype')
  if (!shape) throw new TensorLie(name, 'has no shape')
  if (!offsets) throw new TensorLie(name, 'has no data_offsets')
  const [begin, end] = offsets
  if (begin === undefined || end === undefined) throw new TensorLie(name, 'has fewer than two data_offsets')
  if (begin > end) throw new TensorLie(name, `begins at ${begin}, after its end at ${end}`)
  const bytes = byteCount(dtype, shape)
  if (bytes === undefined) throw new TensorLie(name, `has the shape [${shape}], which is more than any file can hold`)
  if (end - begin !== bytes)
    throw new TensorLie(name, `of shape [${shape}] and dtype ${dtype} has ${end - begin} bytes of data, should have ${bytes}`)
  return { name, dtype, shape, offset: dataStart + begin, bytes }
}

function knownDType(name: string, written: string): DType {
  const dtype = DTYPES.get(written)
  if (!dtype) throw new TensorLie(name, `has the dtype ${quote(written)}, which is none of ${[...DTYPES.keys()].join(', ')}`)
  return dtype
}

function naturals(reader: JsonReader, most: number, tooMany: () => Error): number[] {
  const numbers: number[] = []
  reader.array(() => {
    if (numbers.length === most) throw tooMany()
    numbers.push(reader.natural())
  })
  return numbers
}

/** Undefined beyond 2^53. Empty dimensions do not hide the others. */
function byteCount(dtype: DType, shape: readonly number[]): number | undefined {
  const most = shape.reduce((bytes, n) => bytes * Math.max(n, 1), sizeOf(dtype))
  if (most > Number.MAX_SAFE_INTEGER) return undefined
  return shape.includes(0) ? 0 : most
}

/** Sorts the tensors by place; each must begin where the one before ends, and the last end with the file. */
function checkPlaces(
  tensors: TensorEntry[],
  dataStart: number,
  size: number,
  fail: (code: LoaderErrorCode, message: string) => Error,
): void {
  tensors.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes)
  let at = dataStart
  let before: TensorEntry | undefined
  for (const t of tensors) {
    if (t.offset + t.bytes > size) {
      throw fail('CHECKPOINT_TRUNCATED', `tensor ${quote(t.name)} ends at byte ${t.offset + t.bytes}, the file at byte ${size}.`)
    }
    if (t.offset > at) throw fail('CHECKPOINT_TENSOR', `the ${t.offset - at} bytes before tensor ${quote(t.name)} belong to no tensor.`)
    if (t.offset < at) throw fail('CHECKPOINT_TENSOR', `tensor ${quote(t.name)} overlaps tensor ${quote(before?.name ?? '')}.`)
    at += t.bytes
    before = t
  }
  if (at < size) throw fail('CHECKPOINT_HEADER', `its last ${size - at} bytes belong to no tensor.`)
}

/** Names what people have in place of a safetensors file most often. */
function otherFormat(start: Uint8Array): string | undefined {
  const text = Buffer.from(start).toString('latin1')
  if (text.startsWith('version https://git-lfs')) return 'the pointer of Git LFS, not the weights. Run "git lfs pull" in its folder.'
  if (text.startsWith('PK\x03\x04')) return 'a PyTorch checkpoint. Convert it with the safetensors library.'
  if (text.startsWith('GGUF')) return 'a GGUF file under another name.'
  if (/^\s*<(!doctype|html)/i.test(text)) return 'a web page. The download went wrong: download it again.'
  return undefined
}
