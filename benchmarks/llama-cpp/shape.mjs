// The model that both engines run: Llama-3.2-1B's shape, and how its matrices are written in GGUF's types.
export const shape = {
  layers: 16,
  hidden: 2048,
  heads: 32,
  kvHeads: 8,
  headSize: 64,
  ffn: 8192,
  vocab: 128256,
  context: 131072,
  ropeTheta: 500000,
  eps: 1e-5,
  rope: { factor: 32, low: 1, high: 4, original: 8192 },
}

const half = (buf, o, exponentField, mantissa) => buf.writeUInt16LE((exponentField << 10) | (mantissa & 0x3ff), o)
const randomBytes = (buf, o, count, random) => {
  for (let i = 0; i < count; i += 4) buf.writeUInt32LE(random(), o + i)
}

/**
 * id: the type's number in the file; file: general.file_type; n: values of a block; bytes: bytes of a block; fill: makes a block
 * at byte o, given a function that returns 32 random bits.
 */
export const types = {
  // Sign and mantissa random, magnitude 2^-7 to 2^-5: root mean square near 0.019.
  BF16: {
    id: 30,
    file: 32,
    n: 2,
    bytes: 4,
    fill: (buf, o, random) => void buf.writeUInt32LE(((random() & 0x80ff80ff) | 0x3c003c00) >>> 0, o),
  },
  // Half scale in [2^-12, 2^-11), 32 signed bytes in -127 … 127.
  Q8_0: {
    id: 8,
    file: 7,
    n: 32,
    bytes: 34,
    fill(buf, o, random) {
      half(buf, o, 3, random())
      randomBytes(buf, o + 2, 32, random)
      for (let i = o + 2; i < o + 34; i++) if (buf[i] === 0x80) buf[i] = 0x81
    },
  },
  // Half scale in [2^-8, 2^-7), 32 nibbles with an offset of 8.
  Q4_0: {
    id: 2,
    file: 2,
    n: 32,
    bytes: 18,
    fill(buf, o, random) {
      half(buf, o, 7, random())
      randomBytes(buf, o + 2, 16, random)
    },
  },
  // Half d in [2^-14, 2^-13), half dmin = 8 d (so that the mean is near zero), eight six-bit scales and eight six-bit minima, all
  // in 32 … 63 (what the bits of 0xa0 do in the first eight bytes), 256 nibbles.
  Q4_K: {
    id: 12,
    file: 14,
    n: 256,
    bytes: 144,
    fill(buf, o, random) {
      const mantissa = random()
      half(buf, o, 1, mantissa)
      half(buf, o + 2, 4, mantissa)
      randomBytes(buf, o + 4, 140, random)
      for (let i = o + 4; i < o + 12; i++) buf[i] |= 0xa0
    },
  },
}

export const count = (dims) => dims.reduce((a, b) => a * b, 1)

/** The tensors of a file: [name, dimensions with the contiguous one first, is a matrix]. */
export function tensorList() {
  const { hidden, ffn } = shape
  const q = shape.heads * shape.headSize
  const kv = shape.kvHeads * shape.headSize
  const layer = (i) => [
    [`blk.${i}.attn_norm.weight`, [hidden], false],
    [`blk.${i}.attn_q.weight`, [hidden, q], true],
    [`blk.${i}.attn_k.weight`, [hidden, kv], true],
    [`blk.${i}.attn_v.weight`, [hidden, kv], true],
    [`blk.${i}.attn_output.weight`, [q, hidden], true],
    [`blk.${i}.ffn_norm.weight`, [hidden], false],
    [`blk.${i}.ffn_gate.weight`, [hidden, ffn], true],
    [`blk.${i}.ffn_up.weight`, [hidden, ffn], true],
    [`blk.${i}.ffn_down.weight`, [ffn, hidden], true],
  ]
  return [
    ['token_embd.weight', [hidden, shape.vocab], true],
    ['rope_freqs.weight', [shape.headSize / 2], false],
    ...Array.from({ length: shape.layers }, (_, i) => layer(i)).flat(),
    ['output_norm.weight', [hidden], false],
  ]
}

/** Parameters with and without the embedding, and the bytes of weights that a token reads (the embedding once, as the head). */
export function sizes(typeName) {
  const { n, bytes } = types[typeName]
  let parameters = 0
  let embedding = 0
  let bytesPerToken = 0
  for (const [name, dims, matrix] of tensorList()) {
    const values = count(dims)
    if (name !== 'rope_freqs.weight') parameters += values
    if (name === 'token_embd.weight') embedding = values
    bytesPerToken += matrix ? (values / n) * bytes : values * 4
  }
  return { parameters, linearParameters: parameters - embedding, bytesPerToken }
}
