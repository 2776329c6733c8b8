// llama.cpp, through node-llama-cpp and its prebuilt CPU library, on the files of make-gguf.mjs. JSON lines; the first is the
// configuration, the last the summary.
//
//   node benchmarks/llama-cpp/bench.mjs --nlc DIR [--models DIR] [--types BF16] [--threads 2] [--repeat 3] [--tokens 64]
//        [--wait 90] [--mmap auto|true|false] [--place] [--only decode,prefill,eight,bare]
//
// --nlc: the folder in whose node_modules node-llama-cpp 3.22.1 is installed (npm install node-llama-cpp@3.22.1 --ignore-scripts).
// --wait: for how many seconds a measurement may wait for stretches in which others use less than 0.1 core. --place: start
// llama.cpp's second thread on another core than the first (place.c); without it the library runs as shipped. Needs Linux and gcc.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { cpus, tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { repeat, waitForQuiet } from '../dist/stretches.js'
import * as measure from './measurements.mjs'
import { sizes } from './shape.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const { values } = parseArgs({
  options: {
    nlc: { type: 'string', default: here },
    models: { type: 'string', default: join(tmpdir(), 'gguf') },
    types: { type: 'string', default: 'BF16' },
    threads: { type: 'string', default: '2' },
    repeat: { type: 'string', default: '3' },
    tokens: { type: 'string', default: '64' },
    wait: { type: 'string', default: '90' },
    mmap: { type: 'string', default: 'auto' },
    place: { type: 'boolean', default: false },
    only: { type: 'string', default: 'decode,prefill,eight,bare' },
  },
})
const scratch = mkdtempSync(join(tmpdir(), 'llama-bench-'))
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }))
const compile = (source, out, ...flags) => execFileSync('gcc', [...flags, join(here, source), '-o', join(scratch, out), '-ldl'])
if (values.place && !process.env.LLAMA_BENCH_PLACED) {
  compile('place.c', 'place.so', '-O2', '-shared', '-fPIC')
  const env = { ...process.env, LD_PRELOAD: join(scratch, 'place.so'), LLAMA_BENCH_PLACED: '1' }
  process.exit(spawnSync(process.execPath, process.argv.slice(1), { env, stdio: 'inherit' }).status ?? 1)
}
const print = (line) => console.log(JSON.stringify(line))
const round = (x, digits = 2) => (x === undefined ? undefined : Number(x.toFixed(digits)))
const threads = Number(values.threads)
const tokens = Number(values.tokens)
const wait = Number(values.wait)
const only = new Set(values.only.split(','))

const { getLlama, version } = await importPeer(values.nlc)
const llama = await getLlama({
  gpu: false,
  build: 'never',
  skipDownload: true,
  maxThreads: threads,
  logLevel: 'error',
  progressLogs: false,
})
print({
  benchmark: 'llama-cpp',
  nodeLlamaCpp: version,
  llamaCpp: llama.llamaCppRelease.release,
  library: [...new Set(readFileSync('/proc/self/maps', 'utf8').match(/libggml-cpu[^\s/]*\.so/g))].join(),
  cpu: cpus()[0].model.trim(),
  node: process.version,
  threads,
  placed: values.place,
  mmap: values.mmap,
})
const membw = join(scratch, 'membw')
compile('membw.c', 'membw', '-O3', '-march=native', '-pthread')

for (const name of values.types.split(',')) await run(name)
await llama.dispose()

async function importPeer(folder) {
  let entry
  try {
    entry = createRequire(join(resolve(folder), 'package.json')).resolve('node-llama-cpp')
  } catch {
    console.error(`node-llama-cpp is not installed in ${resolve(folder)}: run npm install node-llama-cpp@3.22.1 --ignore-scripts in a
folder of your own and give it as --nlc`)
    process.exit(2)
  }
  const manifest = JSON.parse(readFileSync(join(dirname(entry), '..', 'package.json'), 'utf8'))
  return { ...(await import(pathToFileURL(entry).href)), version: manifest.version }
}

/** GB/s of the threads together over a buffer of 2 GiB in pages of 2 MiB. */
async function bandwidth() {
  await waitForQuiet(wait)
  return JSON.parse(execFileSync(membw, ['7', '1', String(threads)], { encoding: 'utf8' })).median
}

async function run(name) {
  const modelPath = join(values.models, `llama-3.2-1b-random-${name}.gguf`)
  if (!existsSync(modelPath)) {
    console.error(`${modelPath} is not there: node benchmarks/llama-cpp/make-gguf.mjs --types ${name} makes it`)
    process.exit(2)
  }
  const { bytesPerToken, linearParameters } = sizes(name)
  const bandwidths = [await bandwidth()]
  const model = await llama.loadModel({ modelPath, useMmap: values.mmap === 'auto' ? 'auto' : values.mmap === 'true' })
  const times = Number(values.repeat)
  const result = {}
  const keep = async (key, f) => {
    if (!only.has(key)) return
    result[key] = await repeat(f, times, wait)
    for (const r of result[key])
      print({ type: name, measured: key, ...Object.fromEntries(Object.entries(r).map(([k, v]) => [k, round(v)])) })
  }
  const common = { batchSize: measure.PREFILL, threads: { ideal: threads, min: threads } }
  {
    const context = await model.createContext({ contextSize: 768, ...common })
    const calls = measure.spy(context)
    const sequence = context.getSequence()
    await checkLogits(sequence)
    await keep('decode', (giveUp) => measure.decodeOne(sequence, calls, tokens, giveUp))
    let seed = 3
    await keep('prefill', () => measure.prefill(sequence, calls, seed++))
    await context.dispose()
  }
  if (only.has('eight') || only.has('bare')) {
    const context = await model.createContext({ contextSize: 256, sequences: measure.SEQUENCES, ...common })
    const calls = measure.spy(context)
    const sequences = Array.from({ length: measure.SEQUENCES }, () => context.getSequence())
    await keep('eight', (giveUp) => measure.decodeTogether(sequences, calls, tokens / 2, giveUp))
    await keep('bare', (giveUp) => measure.decodeBare(context, sequences, calls, tokens / 2, giveUp))
    await context.dispose()
  }
  await model.dispose()
  bandwidths.push(await bandwidth())
  const mid = (key, f) => (result[key] ? measure.median(result[key].map(f)) : undefined)
  const decodeMs = mid('decode', (r) => r.ms)
  const prefillMs = mid('prefill', (r) => r.ms)
  print({
    summary: true,
    type: name,
    readGBs: round(measure.median(bandwidths), 1),
    decodeMs: round(decodeMs),
    decodeTokensPerSecond: decodeMs && round(1000 / decodeMs, 1),
    decodeOfBandwidth: decodeMs && round(bytesPerToken / decodeMs / 1e6 / measure.median(bandwidths), 3),
    prefillMs: round(prefillMs, 0),
    prefillTokensPerSecond: prefillMs && round((measure.PREFILL / prefillMs) * 1000, 1),
    prefillTFLOPs: prefillMs && round((2 * linearParameters * measure.PREFILL) / prefillMs / 1e9, 3),
    crowdTokensPerSecond: round(
      mid('eight', (r) => r.rate),
      1,
    ),
    bareCrowdTokensPerSecond: round(
      mid('bare', (r) => r.rate),
      1,
    ),
  })
}

/** A library that computes nonsense is fast too. */
async function checkLogits(sequence) {
  await measure.hold(sequence, measure.tokenIds(16, 1))
  const [out] = await sequence.controlledEvaluate([[1, { generateNext: { logits: true } }]])
  for (const x of out.next.logits.values()) if (!Number.isFinite(x)) throw new Error('llama.cpp computed logits that are not finite')
}
