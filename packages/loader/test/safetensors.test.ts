import { constants } from 'node:buffer'
import { execFileSync } from 'node:child_process'
import { appendFileSync, mkdirSync, readFileSync, statSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { HostArray } from '@aphrodite/tensor'
import { afterAll, describe, expect, test } from 'vitest'
import { loadNative } from '../src/native.ts'
import { openSafetensors, SafetensorsFile } from '../src/safetensors.ts'
import { memoryFile } from './memory-file.ts'
import { f32, fileOf, safetensors, scratch } from './writer.ts'

const { folder, remove } = scratch()
afterAll(remove)
let count = 0
function onDisk(bytes: Uint8Array): string {
  const path = join(folder, `${count++}.safetensors`)
  writeFileSync(path, bytes)
  return path
}

const U = (shape: string, offsets: string, dtype = 'U8') => `{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`
const zeros = (n: number) => new Uint8Array(n)

/** Numbers of an array, by its dtype. */
function numbers({ bytes, dtype }: HostArray): (number | bigint)[] {
  const { buffer, byteOffset: at, byteLength } = bytes.slice()
  const types = {
    f32: Float32Array,
    f64: Float64Array,
    i64: BigInt64Array,
    i16: Int16Array,
    u32: Uint32Array,
    i8: Int8Array,
    u8: Uint8Array,
    bool: Uint8Array,
  }
  const type = types[dtype as keyof typeof types]
  return [...new type(buffer, at, byteLength / type.BYTES_PER_ELEMENT)]
}

test('the addon was built: everything below is about mapped files too', () => {
  expect(loadNative()).toBeDefined()
})

describe.each([{ mmap: true }, { mmap: false }])('$mmap', (options) => {
  test('reads what the safetensors library wrote', () => {
    const file = openSafetensors(fileURLToPath(new URL('fixtures/written-by-safetensors.safetensors', import.meta.url)), options)
    expect(file.metadata).toEqual({ format: 'np', 'say "hi"': 'a\nb' })
    expect(Object.fromEntries(file.tensors.map((t) => [t.name, `${t.dtype} [${t.shape}]`]))).toEqual({
      'embed.weight': 'f32 [3,4]',
      half: 'f16 [2,2]',
      ids: 'i64 [3]',
      mask: 'bool [5]',
      bytes: 'u8 [7]',
      scalar: 'f64 []',
      empty: 'f32 [0,5]',
      i16: 'i16 [2,1]',
      u32: 'u32 [1]',
      'naïve.名': 'i8 [1]',
    })
    expect(numbers(file.get('embed.weight'))).toEqual(Array.from({ length: 12 }, (_, i) => i / 8))
    expect(file.get('embed.weight').strides).toEqual([4, 1])
    expect(numbers(file.get('ids'))).toEqual([-1n, 2n ** 40n, 7n])
    expect(numbers(file.get('mask'))).toEqual([1, 0, 1, 1, 0])
    expect(numbers(file.get('bytes'))).toEqual([0, 1, 2, 3, 4, 5, 6])
    expect(numbers(file.get('scalar'))).toEqual([3.5])
    expect(numbers(file.get('empty'))).toEqual([])
    expect(numbers(file.get('i16'))).toEqual([-3, 4])
    expect(numbers(file.get('u32'))).toEqual([4294967295])
    expect(numbers(file.get('naïve.名'))).toEqual([1])
    expect([...file.get('half').bytes]).toEqual([0x00, 0x3e, 0x80, 0xc0, 0x00, 0x00, 0xff, 0x7b])
    // In the order of the file, each at a multiple of its element's size.
    expect([...file].map((t) => t.name)).toEqual(file.tensors.map((t) => t.name))
    for (const { array } of file)
      expect(array.bytes.byteOffset % { f64: 8, i64: 8, f32: 4, u32: 4, f16: 2, i16: 2 }[array.dtype as string]! || 0).toBe(0)
    file.close()
  })

  test('a tensor whose place is no multiple of its element size is aligned for its reader', () => {
    const header = '{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"F32","shape":[1],"data_offsets":[3,7]}}'
    const file = openSafetensors(onDisk(fileOf(header, Uint8Array.of(1, 2, 3, ...new Uint8Array(Float32Array.of(1.5).buffer)))), options)
    const { bytes } = file.get('b')
    expect(new Float32Array(bytes.buffer, bytes.byteOffset, 1)[0]).toBe(1.5)
    file.close()
  })

  test('closing ends the views and every later read', () => {
    const file = openSafetensors(onDisk(safetensors({ a: f32([2], 1, 2) })), options)
    const { bytes } = file.get('a')
    file.close()
    file.close()
    if (options.mmap) expect(bytes.length).toBe(0)
    expect(() => file.get('a')).toThrow(/was closed/)
    expect(() => [...file]).toThrow(/was closed/)
  })

  test('a file that shrinks, grows or is written to while it is open is an error', () => {
    const big = f32([50_000], ...new Array<number>(50_000).fill(1))
    for (const change of [
      (path: string) => truncateSync(path, 1000),
      (path: string) => truncateSync(path, 0),
      (path: string) => appendFileSync(path, 'x'),
      (path: string) => utimesSync(path, 1, 1),
    ]) {
      const path = onDisk(safetensors({ a: f32([1], 1), b: big }))
      const file = openSafetensors(path, options)
      expect(file.get('a').bytes.length).toBe(4)
      change(path)
      expect(() => file.get('b')).toThrow(/changed while it was being read/)
      file.close()
    }
  })

  test('what is no file', () => {
    mkdirSync(join(folder, `dir-${options.mmap}`))
    execFileSync('mkfifo', [join(folder, `pipe-${options.mmap}`)])
    symlinkSync('nowhere', join(folder, `link-${options.mmap}`))
    for (const [path, message] of [
      [join(folder, `dir-${options.mmap}`), 'is not a file'],
      [join(folder, `pipe-${options.mmap}`), 'is not a file'],
      ['/dev/zero', 'is not a file'],
      [join(folder, `link-${options.mmap}`), 'Is the download complete?'],
      [join(folder, 'absent'), 'Is the download complete?'],
      ['a\0b', 'cannot be read'],
    ] as const) {
      expect(() => openSafetensors(path, options), path).toThrow(
        expect.objectContaining({ code: 'CHECKPOINT_UNREADABLE', message: expect.stringContaining(message) }),
      )
    }
  })
})

test.each([{ mmap: true }, { mmap: false }])('a file beyond 4 GiB, and a tensor that is too large for an array, mmap: $mmap', (options) => {
  const [big, last] = [4_000_000_000, 6_000_000_000]
  const header = (n: number) =>
    `{"a":${U(`[${n}]`, `[0,${n}]`)},"b":${U(`[${last - n}]`, `[${n},${last}]`)},"c":${U('[4]', `[${last},${last + 4}]`)}}`
  const sparse = (n: number): string => {
    const path = onDisk(fileOf(header(n), zeros(0)))
    const size = statSync(path).size
    truncateSync(path, size + last)
    appendFileSync(path, Uint8Array.of(1, 2, 3, 4))
    return path
  }
  const file = openSafetensors(sparse(big), options)
  expect([...file.get('c').bytes]).toEqual([1, 2, 3, 4])
  file.close()
  const large = openSafetensors(sparse(5_000_000_000), options)
  if (constants.MAX_LENGTH < 5e9) expect(() => large.get('a')).toThrow(/"a" has 5000000000 bytes; an array of Node .* has at most/)
  large.close()
})

test('a view that is written to does not change the file', () => {
  const bytes = safetensors({ a: f32([2], 1, 2) })
  const path = onDisk(bytes)
  const file = openSafetensors(path)
  file.get('a').bytes.fill(9)
  file.close()
  expect(Buffer.compare(readFileSync(path), bytes)).toBe(0)
})

test('misspelt options', () => {
  expect(() => openSafetensors('x', { mmapp: true } as never)).toThrow('openSafetensors has no option "mmapp". Did you mean "mmap"?')
})

/** [what is wrong, the file, its code, a part of the message] */
const lies: readonly [string, Uint8Array, string, string][] = [
  ['empty', zeros(0), 'CHECKPOINT_TRUNCATED', 'has only 0 bytes'],
  ['seven bytes', zeros(7), 'CHECKPOINT_TRUNCATED', 'has only 7 bytes'],
  ['no header', zeros(8), 'CHECKPOINT_HEADER', 'should start with "{"'],
  ['a header of 2^60 bytes', fileOf('{}', zeros(0), 1n << 60n), 'CHECKPOINT_HEADER', 'says that its header has 1152921504606846976 bytes'],
  ['a header of 2^64 - 1 bytes', fileOf('{}', zeros(0), (1n << 64n) - 1n), 'CHECKPOINT_HEADER', '18446744073709551615'],
  ['a header longer than the format allows', fileOf('{}', zeros(0), 100_000_001n), 'CHECKPOINT_HEADER', '100000000 is the most'],
  ['a header beyond the file', fileOf('{}', zeros(0), 100n), 'CHECKPOINT_TRUNCATED', 'the header alone needs 108'],
  ['no JSON', fileOf('hello', zeros(0)), 'CHECKPOINT_HEADER', 'should start with "{"'],
  ['white space first', fileOf(' {}', zeros(0)), 'CHECKPOINT_HEADER', 'should start with "{"'],
  ['a byte order mark', fileOf('\ufeff{}', zeros(0)), 'CHECKPOINT_HEADER', 'should start with "{"'],
  ['no UTF-8', fileOf(Uint8Array.of(0x7b, 0xff, 0x7d), zeros(0)), 'CHECKPOINT_HEADER', 'not UTF-8'],
  ['an unfinished object', fileOf(`{"a":${U('[1]', '[0,1]')}`, zeros(1)), 'CHECKPOINT_HEADER', 'has the end'],
  ['text behind the object', fileOf(`{"a":${U('[1]', '[0,1]')}} x`, zeros(1)), 'CHECKPOINT_HEADER', 'should end here'],
  ['a name twice', fileOf(`{"a":${U('[1]', '[0,1]')},"a":${U('[1]', '[1,2]')}}`, zeros(2)), 'CHECKPOINT_HEADER', '"a" is there twice'],
  [
    'a name twice, once in escapes',
    fileOf(`{"a":${U('[1]', '[0,1]')},"\\u0061":${U('[1]', '[1,2]')}}`, zeros(2)),
    'CHECKPOINT_HEADER',
    '"a" is there twice',
  ],
  [
    'a key twice',
    fileOf(`{"a":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}}`, zeros(1)),
    'CHECKPOINT_HEADER',
    '"shape" is there twice',
  ],
  ['deep nesting', fileOf(`{"a":${'['.repeat(1e6)}`, zeros(1)), 'CHECKPOINT_HEADER', 'should have "{" here'],
  ['deep nesting in a shape', fileOf(`{"a":{"shape":${'['.repeat(1e6)}`, zeros(1)), 'CHECKPOINT_HEADER', 'should have a number here'],
  ['a million dimensions', fileOf(`{"a":{"shape":[${'1,'.repeat(1e6)}1]}}`, zeros(1)), 'CHECKPOINT_TENSOR', 'more than 64 dimensions'],
  ['an unknown dtype', fileOf(`{"a":${U('[1]', '[0,1]', 'F7')}}`, zeros(1)), 'CHECKPOINT_TENSOR', 'the dtype "F7"'],
  ['an inherited dtype', fileOf(`{"a":${U('[1]', '[0,1]', 'constructor')}}`, zeros(1)), 'CHECKPOINT_TENSOR', 'the dtype "constructor"'],
  [
    'a dtype that is a number',
    fileOf(`{"a":{"dtype":1,"shape":[1],"data_offsets":[0,1]}}`, zeros(1)),
    'CHECKPOINT_HEADER',
    'a string in quotes',
  ],
  ['no dtype', fileOf(`{"a":{"shape":[1],"data_offsets":[0,1]}}`, zeros(1)), 'CHECKPOINT_TENSOR', '"a" has no dtype'],
  ['no shape', fileOf(`{"a":{"dtype":"U8","data_offsets":[0,1]}}`, zeros(1)), 'CHECKPOINT_TENSOR', '"a" has no shape'],
  ['no offsets', fileOf(`{"a":{"dtype":"U8","shape":[1]}}`, zeros(1)), 'CHECKPOINT_TENSOR', '"a" has no data_offsets'],
  ['an unknown key', fileOf(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"scale":2}}`, zeros(1)), 'CHECKPOINT_TENSOR', '"scale"'],
  ['null for a tensor', fileOf('{"a":null}', zeros(0)), 'CHECKPOINT_HEADER', 'should have "{" here'],
  ['one offset', fileOf(`{"a":${U('[1]', '[0]')}}`, zeros(1)), 'CHECKPOINT_TENSOR', 'fewer than two'],
  ['three offsets', fileOf(`{"a":${U('[1]', '[0,1,2]')}}`, zeros(1)), 'CHECKPOINT_TENSOR', 'more than two'],
  ['a negative offset', fileOf(`{"a":${U('[1]', '[-1,0]')}}`, zeros(1)), 'CHECKPOINT_HEADER', 'at least 0 here, has "-1"'],
  ['a fraction', fileOf(`{"a":${U('[1.0]', '[0,1]')}}`, zeros(1)), 'CHECKPOINT_HEADER', 'has "1.0"'],
  ['an exponent', fileOf(`{"a":${U('[1e0]', '[0,1]')}}`, zeros(1)), 'CHECKPOINT_HEADER', 'has "1e0"'],
  [
    'an offset beyond 2^53',
    fileOf(`{"a":${U('[1]', '[9007199254740993,9007199254740994]')}}`, zeros(1)),
    'CHECKPOINT_HEADER',
    'beyond 2^53',
  ],
  ['an end before its begin', fileOf(`{"a":${U('[1]', '[1,0]')}}`, zeros(1)), 'CHECKPOINT_TENSOR', 'begins at 1, after its end at 0'],
  [
    'a shape that overflows',
    fileOf(`{"a":${U('[4294967296,4294967296]', '[0,0]')}}`, zeros(0)),
    'CHECKPOINT_TENSOR',
    'more than any file can hold',
  ],
  [
    'a shape that overflows behind an empty dimension',
    fileOf(`{"a":${U('[0,4294967296,4294967296]', '[0,0]')}}`, zeros(0)),
    'CHECKPOINT_TENSOR',
    'more than any file',
  ],
  ['bytes that overflow', fileOf(`{"a":${U('[9007199254740991]', '[0,1]', 'F64')}}`, zeros(1)), 'CHECKPOINT_TENSOR', 'more than any file'],
  [
    'too few bytes for the shape',
    fileOf(`{"a":${U('[2]', '[0,4]', 'F32')}}`, zeros(4)),
    'CHECKPOINT_TENSOR',
    'has 4 bytes of data, should have 8',
  ],
  [
    'too many bytes for the shape',
    fileOf(`{"a":${U('[1]', '[0,8]', 'F32')}}`, zeros(8)),
    'CHECKPOINT_TENSOR',
    'has 8 bytes of data, should have 4',
  ],
  [
    'data cut off',
    fileOf(`{"a":${U('[4]', '[0,4]')},"b":${U('[4]', '[4,8]')}}`, zeros(7)),
    'CHECKPOINT_TRUNCATED',
    'tensor "b" ends at byte',
  ],
  [
    'data far beyond the file',
    fileOf(`{"a":${U('[1000000000000]', '[0,1000000000000]')}}`, zeros(7)),
    'CHECKPOINT_TRUNCATED',
    'tensor "a" ends at byte',
  ],
  [
    'bytes behind the last tensor',
    fileOf(`{"a":${U('[4]', '[0,4]')}}`, zeros(9)),
    'CHECKPOINT_HEADER',
    'its last 5 bytes belong to no tensor',
  ],
  ['data without tensors', fileOf('{}', zeros(9)), 'CHECKPOINT_HEADER', 'its last 9 bytes belong to no tensor'],
  [
    'a hole',
    fileOf(`{"a":${U('[4]', '[0,4]')},"b":${U('[4]', '[6,10]')}}`, zeros(10)),
    'CHECKPOINT_TENSOR',
    'the 2 bytes before tensor "b"',
  ],
  ['a hole at the start', fileOf(`{"a":${U('[4]', '[1,5]')}}`, zeros(5)), 'CHECKPOINT_TENSOR', 'the 1 bytes before tensor "a"'],
  ['an overlap', fileOf(`{"a":${U('[4]', '[0,4]')},"b":${U('[4]', '[3,7]')}}`, zeros(7)), 'CHECKPOINT_TENSOR', '"b" overlaps tensor "a"'],
  ['the same place twice', fileOf(`{"a":${U('[4]', '[0,4]')},"b":${U('[4]', '[0,4]')}}`, zeros(4)), 'CHECKPOINT_TENSOR', 'overlaps'],
  [
    'an empty tensor inside another',
    fileOf(`{"a":${U('[4]', '[0,4]')},"b":${U('[0]', '[2,2]')}}`, zeros(4)),
    'CHECKPOINT_TENSOR',
    '"b" overlaps tensor "a"',
  ],
  ['metadata that is no text', fileOf('{"__metadata__":{"a":1}}', zeros(0)), 'CHECKPOINT_HEADER', 'a string in quotes'],
  ['metadata that is a list', fileOf('{"__metadata__":[]}', zeros(0)), 'CHECKPOINT_HEADER', 'should have "{"'],
  [
    'a pointer of Git LFS',
    Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'),
    'CHECKPOINT_HEADER',
    'git lfs pull',
  ],
  ['a PyTorch file', Buffer.from('PK\x03\x04aaaaaaaaaaaa'), 'CHECKPOINT_HEADER', 'a PyTorch checkpoint'],
  ['a GGUF file', Buffer.from('GGUF\x03\0\0\0aaaaaaaaaaaa'), 'CHECKPOINT_HEADER', 'a GGUF file'],
  ['a web page', Buffer.from('<!DOCTYPE html><html></html>'), 'CHECKPOINT_HEADER', 'a web page'],
]

test.each(lies)('%s is refused by name, at once', (_what, bytes, code, message) => {
  const start = performance.now()
  expect(() => new SafetensorsFile(memoryFile(bytes))).toThrow(expect.objectContaining({ code, message: expect.stringContaining(message) }))
  expect(() => new SafetensorsFile(memoryFile(bytes))).toThrow(/^memory\.safetensors/)
  expect(performance.now() - start).toBeLessThan(1_000)
})

test('what is odd but right', () => {
  const odd: [string, number, string[]][] = [
    ['{}', 0, []],
    ['{}      \n', 0, []],
    ['{"__metadata__":null}', 0, []],
    [`{"b":${U('[4]', '[2,6]')},"a":${U('[2]', '[0,2]')}}`, 6, ['a', 'b']],
    [`{"a":${U('[4]', '[0,4]')},"b":${U('[0]', '[4,4]')},"c":${U('[0]', '[0,0]')}}`, 4, ['c', 'a', 'b']],
    [`{"":${U('[1]', '[0,1]')},"__proto__":${U('[1]', '[1,2]')},"constructor":${U('[]', '[2,3]')}}`, 3, ['', '__proto__', 'constructor']],
    [`{ "a" : { "data_offsets" : [ 0 , 1 ] , "shape" : [ 1 , 1 ] , "dtype" : "I8" } }`, 1, ['a']],
  ]
  for (const [header, n, names] of odd) {
    const file = new SafetensorsFile(memoryFile(fileOf(header, zeros(n))))
    expect([...file].map((t) => t.name)).toEqual(names)
  }
})

test('every dtype has its size', () => {
  const sizes = {
    F64: 8,
    F32: 4,
    F16: 2,
    BF16: 2,
    F8_E4M3: 1,
    F8_E5M2: 1,
    I64: 8,
    I32: 4,
    I16: 2,
    I8: 1,
    U64: 8,
    U32: 4,
    U16: 2,
    U8: 1,
    BOOL: 1,
  }
  for (const [dtype, size] of Object.entries(sizes)) {
    const bytes = fileOf(`{"a":${U('[3]', `[0,${3 * size}]`, dtype)}}`, zeros(3 * size))
    expect(new SafetensorsFile(memoryFile(bytes)).get('a').bytes.length, dtype).toBe(3 * size)
  }
})
