// Runs the op table on the GPU and writes down what every call was given and what it left: node scripts/record-ops.mjs FOLDER
//
// FOLDER/calls.json: [{ case, op, args, after }]; numbers and strings stand for themselves, { at, shape, dtype } for an array in
// FOLDER/data.bin (float32 or int32, little-endian), { cache, shape, pages } for a paged cache. `after`: the tensors that the op
// writes, once it is done. compare-torch.py reads it.
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { PackedWeight, PagedCache, Tensor } from '@aphrodite/tensor'
import { OP_CASES, prepareOpCase } from '@aphrodite/testing'
import { createCudaDevice } from '../dist/index.js'

const folder = process.argv[2]
mkdirSync(folder, { recursive: true })
const data = openSync(join(folder, 'data.bin'), 'w')
const device = createCudaDevice()
let end = 0

function put(array, shape, dtype) {
  const at = end
  writeSync(data, new Uint8Array(array.buffer, array.byteOffset, array.byteLength))
  end += array.byteLength
  return { at, shape, dtype }
}
function describe(value) {
  if (value instanceof Tensor) return put(device.download(value), value.shape, value.dtype)
  if (value instanceof PackedWeight) return put(device.unpack(value), [value.outFeatures, value.inFeatures], value.format)
  if (value instanceof PagedCache) return { cache: value.address, shape: value.shape, pages: value.pages }
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(
      Object.entries(value)
        .filter(([, v]) => v !== undefined)
        .map(([k, v]) => [k, describe(v)]),
    )
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value) // JSON has no infinities
  return value === undefined ? null : value
}

/** Arguments that an op writes. */
const WRITES = { addRmsNorm: [0, 1], rotary: [0, 1], writeCache: [], logProbs: [0, 1, 2] }
const calls = []
let current = ''
const kernels = new Proxy(device.kernels, {
  get:
    (target, op) =>
    (...args) => {
      const before = args.map(describe)
      target[op](...args)
      const after = (WRITES[op] ?? [0]).map((i) => describe(args[i]))
      calls.push({ case: current, op, args: before, after })
    },
})
const watched = new Proxy(device, {
  get(target, name) {
    if (name === 'kernels') return kernels
    const value = Reflect.get(target, name, target)
    return typeof value === 'function' ? value.bind(target) : value
  },
})
for (const opCase of OP_CASES) {
  current = opCase.name
  const { run, memory } = prepareOpCase(opCase, watched)
  run()
  memory.release()
}
closeSync(data)
writeFileSync(join(folder, 'calls.json'), JSON.stringify({ device: device.description, calls }))
console.log(`${calls.length} calls of ${OP_CASES.length} cases, ${(end / 1e6).toFixed(0)} MB`)
device.close()
