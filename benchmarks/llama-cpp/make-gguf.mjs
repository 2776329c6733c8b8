// Writes GGUF v3 files with random weights in Llama-3.2-1B's shape, for measuring speed.
//
//   node benchmarks/llama-cpp/make-gguf.mjs [--out DIR] [--types BF16,Q8_0,Q4_0,Q4_K] [--force]
//
// DIR is "gguf" in the system's temporary folder unless said. Every matrix of a file, the tied embedding too, has the same type;
// norms and RoPE factors are f32. There is no output.weight: llama.cpp then takes token_embd.weight as the head. The vocabulary is
// made up, in gpt2's style: with none ("tokenizer.ggml.model" = "none") node-llama-cpp ends the process, since it tokenizes a text
// while it loads a model. The benchmark feeds ids.
import { closeSync, existsSync, mkdirSync, openSync, statSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { count, shape, sizes, tensorList, types } from './shape.mjs'

const ALIGNMENT = 32
const TYPE_F32 = 0
const aligned = (n) => Math.ceil(n / ALIGNMENT) * ALIGNMENT

/** xorshift: 32 random bits a call. */
function randomFrom(seed) {
  let x = seed >>> 0
  return () => {
    x ^= x << 13
    x >>>= 0
    x ^= x >>> 17
    x ^= x << 5
    x >>>= 0
    return x
  }
}

/** Divisors of the RoPE frequencies, as Llama 3 defines them. */
function ropeFactors() {
  const { factor, low, high, original } = shape.rope
  return Float32Array.from({ length: shape.headSize / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * shape.ropeTheta ** ((2 * i) / shape.headSize)
    const smooth = Math.min(1, Math.max(0, (original / wavelength - low) / (high - low)))
    return 1 / ((1 - smooth) / factor + smooth)
  })
}

/** Bytes of a header, in GGUF's writing: numbers little-endian, strings with their length before them, keys with their type. */
class Writer {
  parts = []
  keys = 0
  number(size, write) {
    const buf = Buffer.alloc(size)
    write(buf)
    this.parts.push(buf)
    return this
  }
  u32 = (v) => this.number(4, (b) => b.writeUInt32LE(v))
  u64 = (v) => this.number(8, (b) => b.writeBigUInt64LE(BigInt(v)))
  string(v) {
    const bytes = Buffer.from(v, 'utf8')
    this.u64(bytes.length)
    this.parts.push(bytes)
    return this
  }
  key(name, type) {
    this.keys++
    return this.string(name).u32(type)
  }
  keyU32 = (name, v) => this.key(name, 4).u32(v)
  keyF32 = (name, v) => this.key(name, 6).number(4, (b) => b.writeFloatLE(v))
  keyString = (name, v) => this.key(name, 8).string(v)
  keyStrings(name, v) {
    this.key(name, 9).u32(8).u64(v.length)
    for (const x of v) this.string(x)
  }
  keyI32s(name, v) {
    this.key(name, 9).u32(5).u64(v.length)
    this.parts.push(Buffer.from(Int32Array.from(v).buffer))
  }
}

/** 256 tokens of a byte in gpt2's spelling of bytes, made-up words, 256 control tokens. */
function vocabulary(n) {
  const tokens = []
  for (let b = 0, extra = 256; b < 256; b++) {
    const printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174
    tokens.push(String.fromCodePoint(printable ? b : extra++))
  }
  while (tokens.length < n) tokens.push(tokens.length < n - 256 ? `w${tokens.length}` : `<|control_${tokens.length}|>`)
  // 1: normal, 3: control.
  return { tokens, kinds: tokens.map((_, i) => (i < n - 256 ? 1 : 3)), bos: n - 256, eos: n - 255 }
}

function metadata(typeName) {
  const meta = new Writer()
  meta.keyString('general.architecture', 'llama')
  meta.keyString('general.name', `random weights, Llama-3.2-1B shape, ${typeName}`)
  meta.keyU32('general.file_type', types[typeName].file)
  meta.keyU32('general.quantization_version', 2)
  meta.keyU32('general.alignment', ALIGNMENT)
  meta.keyU32('llama.block_count', shape.layers)
  meta.keyU32('llama.context_length', shape.context)
  meta.keyU32('llama.embedding_length', shape.hidden)
  meta.keyU32('llama.feed_forward_length', shape.ffn)
  meta.keyU32('llama.attention.head_count', shape.heads)
  meta.keyU32('llama.attention.head_count_kv', shape.kvHeads)
  meta.keyU32('llama.attention.key_length', shape.headSize)
  meta.keyU32('llama.attention.value_length', shape.headSize)
  meta.keyU32('llama.rope.dimension_count', shape.headSize)
  meta.keyF32('llama.rope.freq_base', shape.ropeTheta)
  meta.keyF32('llama.attention.layer_norm_rms_epsilon', shape.eps)
  meta.keyU32('llama.vocab_size', shape.vocab)
  const { tokens, kinds, bos, eos } = vocabulary(shape.vocab)
  meta.keyString('tokenizer.ggml.model', 'gpt2')
  meta.keyString('tokenizer.ggml.pre', 'llama-bpe')
  meta.keyStrings('tokenizer.ggml.tokens', tokens)
  meta.keyI32s('tokenizer.ggml.token_type', kinds)
  meta.keyStrings('tokenizer.ggml.merges', ['w 1', 'w 2'])
  meta.keyU32('tokenizer.ggml.bos_token_id', bos)
  meta.keyU32('tokenizer.ggml.eos_token_id', eos)
  return meta
}

function writeGguf(file, typeName) {
  const type = types[typeName]
  const tensors = tensorList().map(([name, dims, matrix]) => ({
    name,
    dims,
    matrix,
    bytes: matrix ? (count(dims) / type.n) * type.bytes : count(dims) * 4,
  }))
  const meta = metadata(typeName)
  const head = new Writer()
  head.parts.push(Buffer.from('GGUF'))
  head.u32(3).u64(tensors.length).u64(meta.keys)
  head.parts.push(...meta.parts)
  let offset = 0
  for (const { name, dims, matrix, bytes } of tensors) {
    head.string(name).u32(dims.length)
    for (const d of dims) head.u64(d)
    head.u32(matrix ? type.id : TYPE_F32).u64(offset)
    offset = aligned(offset + bytes)
  }
  const header = Buffer.concat(head.parts)

  // A pool of random blocks, an odd number of them, copied from a random place for each piece.
  const random = randomFrom(12345)
  const poolBlocks = Math.floor((32 << 20) / type.bytes) | 1
  const pool = Buffer.alloc(poolBlocks * type.bytes)
  for (let i = 0; i < poolBlocks; i++) type.fill(pool, i * type.bytes, random)

  const fd = openSync(file, 'w')
  const write = (bytes) => {
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at)
  }
  write(header)
  write(Buffer.alloc(aligned(header.length) - header.length))
  for (const { name, dims, matrix, bytes } of tensors) {
    if (matrix) {
      for (let left = bytes / type.bytes; left > 0; ) {
        const from = random() % poolBlocks
        const blocks = Math.min(left, poolBlocks - from)
        write(pool.subarray(from * type.bytes, (from + blocks) * type.bytes))
        left -= blocks
      }
    } else {
      const norm = () => new Float32Array(count(dims)).map(() => 0.75 + random() / 2 ** 33)
      const values = name === 'rope_freqs.weight' ? ropeFactors() : norm()
      write(Buffer.from(values.buffer))
    }
    write(Buffer.alloc(aligned(bytes) - bytes))
  }
  closeSync(fd)
}

const { values } = parseArgs({
  options: {
    out: { type: 'string', default: join(tmpdir(), 'gguf') },
    types: { type: 'string', default: Object.keys(types).join(',') },
    force: { type: 'boolean', default: false },
  },
})
mkdirSync(values.out, { recursive: true })
for (const name of values.types.split(',')) {
  if (!types[name]) throw new Error(`there is no type ${name}; there are ${Object.keys(types).join(', ')}`)
  const file = join(values.out, `llama-3.2-1b-random-${name}.gguf`)
  if (values.force || !existsSync(file)) writeGguf(file, name)
  console.log(JSON.stringify({ file: basename(file), bytes: statSync(file).size, ...sizes(name) }))
}
