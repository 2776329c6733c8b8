import { availableParallelism, cpus } from 'node:os'
import { type DeviceLimits, LLM, type LLMOptions } from '@aphrodite/llm'
import type { Command } from '../command.ts'
import { cliError } from '../errors.ts'
import { ENGINE_GROUPS, type FlagGroup } from '../flags.ts'
import { llmOptions } from '../llm-options.ts'
import { progressPrinter, thousands } from '../progress.ts'
import type { Settings } from '../settings.ts'

const BENCH: FlagGroup = {
  title: 'Bench',
  flags: [
    { name: 'input-len', type: { kind: 'count' }, help: 'tokens of a prompt', default: '128' },
    { name: 'output-len', type: { kind: 'count' }, help: 'tokens of an answer', default: '64' },
    { name: 'batch-size', type: { kind: 'count' }, help: 'latency: sequences at a time', default: '1' },
    { name: 'num-prompts', type: { kind: 'count' }, help: 'throughput: requests in all', default: '64' },
    { name: 'repeat', type: { kind: 'count' }, help: 'times that each measurement is made; the median is printed', default: '3' },
    { name: 'json', type: { kind: 'boolean' }, help: 'print one line of JSON instead', default: 'false' },
  ],
}

/** One measurement with everything that it depends on. */
export interface BenchResult {
  readonly benchmark: string
  readonly configuration: Readonly<Record<string, string | number>>
  readonly figures: Readonly<Record<string, number>>
}

export const benchCommand: Command = {
  name: 'bench',
  usage: 'bench latency|throughput|startup MODEL',
  summary: 'Measures the whole pass, beside what the memory and the arithmetic units of this machine allow.',
  groups: [BENCH, ...ENGINE_GROUPS],
  async run({ settings, positionals }) {
    const [what, ...rest] = positionals
    const options = { skipTokenizerInit: true, ...llmOptions(rest, settings, 'bench') }
    const measure = { latency: benchLatency, throughput: benchThroughput, startup: benchStartup }[what ?? '']
    if (!measure)
      throw cliError(
        'BAD_COMMAND',
        `aphrodite bench measures latency, throughput or startup, not ${what === undefined ? 'nothing' : `"${what}"`}`,
      )
    const result = await measure(options, settings)
    if (settings.get('json')) console.log(JSON.stringify(result))
    else print(result)
    return 0
  },
}

const number = (settings: Settings, name: string, fallback: number): number => (settings.get(name) as number | undefined) ?? fallback

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN

/** Prompts that share no beginning, so that no prefix is found in the cache. */
function randomPrompt(length: number, vocabSize: number, seed: number): number[] {
  let state = (seed * 2654435761 + 12345) >>> 0
  return Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state % vocabSize
  })
}

async function withModel<T>(options: LLMOptions, fn: (llm: LLM) => Promise<T>): Promise<T> {
  const llm = await LLM.create({ ...options, onProgress: progressPrinter() })
  try {
    return await fn(llm)
  } finally {
    await llm.close()
  }
}

/** Times of one answer: until its first token, and between the others, in ms. */
async function timeOne(llm: LLM, prompt: readonly number[], outputLen: number): Promise<{ first: number; gaps: number[] }> {
  const started = performance.now()
  let last = started
  let first = 0
  const gaps: number[] = []
  for await (const delta of llm.stream({ promptTokenIds: prompt }, { temperature: 0, maxTokens: outputLen, ignoreEos: true })) {
    const now = performance.now()
    if (first === 0) first = now - started
    else for (const _ of delta.tokenIds) gaps.push((now - last) / delta.tokenIds.length)
    last = now
  }
  return { first, gaps }
}

async function benchLatency(options: LLMOptions, settings: Settings): Promise<BenchResult> {
  const [inputLen, outputLen, batch, repeat] = [
    number(settings, 'input-len', 128),
    number(settings, 'output-len', 64),
    number(settings, 'batch-size', 1),
    number(settings, 'repeat', 3),
  ]
  return withModel(options, async (llm) => {
    let seed = 1
    const prompt = () => randomPrompt(inputLen, llm.info.vocabSize, seed++)
    await timeOne(llm, prompt(), 8) // once for caches and clocks
    const firsts: number[] = []
    const gaps: number[] = []
    for (let r = 0; r < repeat; r++) {
      const runs = await Promise.all(Array.from({ length: batch }, () => timeOne(llm, prompt(), outputLen)))
      firsts.push(Math.max(...runs.map((x) => x.first)))
      for (const run of runs) gaps.push(...run.gaps.slice(batch)) // the first few fall into the others' prompts
    }
    const step = median(gaps)
    const limits = await llm.measureLimits()
    return {
      benchmark: 'latency',
      configuration: configuration(llm, { inputLen, outputLen, batch, repeat }),
      figures: {
        msPerStep: step,
        tokensPerSecond: (batch * 1000) / step,
        msToFirstToken: median(firsts),
        prefillTokensPerSecond: (batch * inputLen * 1000) / median(firsts),
        ...fractions(llm, limits, step, inputLen * batch, median(firsts)),
      },
    }
  })
}

/** What the same run measured of the machine, and how much of it was used. */
function fractions(llm: LLM, limits: DeviceLimits, stepMs: number, promptTokens: number, firstMs: number): Record<string, number> {
  return {
    readGBs: limits.readBytesPerSecond / 1e9,
    peakTFLOPs: limits.flops / 1e12,
    decodeOfBandwidth: llm.info.bytesPerStep / (stepMs / 1000) / limits.readBytesPerSecond,
    prefillOfPeak: (llm.info.flopsPerToken * promptTokens) / (firstMs / 1000) / limits.flops,
  }
}

async function benchThroughput(options: LLMOptions, settings: Settings): Promise<BenchResult> {
  const [inputLen, outputLen, prompts, repeat] = [
    number(settings, 'input-len', 128),
    number(settings, 'output-len', 64),
    number(settings, 'num-prompts', 64),
    number(settings, 'repeat', 1),
  ]
  return withModel(options, async (llm) => {
    const rates: number[] = []
    let seed = 1
    for (let r = 0; r < repeat; r++) {
      const started = performance.now()
      const requests = Array.from({ length: prompts }, () => ({ promptTokenIds: randomPrompt(inputLen, llm.info.vocabSize, seed++) }))
      await llm.generate(requests, { temperature: 0, maxTokens: outputLen, ignoreEos: true })
      rates.push(prompts / ((performance.now() - started) / 1000))
    }
    const rate = median(rates)
    return {
      benchmark: 'throughput',
      configuration: configuration(llm, { inputLen, outputLen, prompts, repeat }),
      figures: { requestsPerSecond: rate, outputTokensPerSecond: rate * outputLen, totalTokensPerSecond: rate * (inputLen + outputLen) },
    }
  })
}

async function benchStartup(options: LLMOptions, settings: Settings): Promise<BenchResult> {
  const repeat = number(settings, 'repeat', 3)
  const loads: number[] = []
  const firsts: number[] = []
  let config: BenchResult['configuration'] = {}
  for (let r = 0; r < repeat; r++) {
    const started = performance.now()
    const llm = await LLM.create(options)
    loads.push(performance.now() - started)
    for await (const _ of llm.stream({ promptTokenIds: [1, 2, 3] }, { temperature: 0, maxTokens: 1, ignoreEos: true }))
      firsts.push(performance.now() - started)
    config = configuration(llm, { repeat })
    await llm.close()
  }
  return { benchmark: 'startup', configuration: config, figures: { msToLoad: median(loads), msToFirstToken: median(firsts) } }
}

function configuration(llm: LLM, more: Record<string, number>): BenchResult['configuration'] {
  const { model, architecture, device, dtype, threads, parameters } = llm.info
  return {
    model,
    architecture,
    parameters,
    device,
    dtype,
    threads,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    node: process.version,
    ...more,
  }
}

function print({ benchmark, configuration: config, figures }: BenchResult): void {
  console.log(`bench ${benchmark}`)
  for (const [key, value] of Object.entries(config))
    console.log(`  ${key.padEnd(24)}${typeof value === 'number' ? thousands(value) : value}`)
  console.log('')
  for (const [key, value] of Object.entries(figures))
    console.log(`  ${key.padEnd(24)}${/Of/.test(key) ? `${(value * 100).toFixed(1)} %` : value.toPrecision(4)}`)
}
