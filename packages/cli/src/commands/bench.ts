import { type LLM, type LLMOptions, rankFromEnvironment } from '@aphrodite/llm'
import { benchLatency } from '../bench/latency.ts'
import { benchPrefill } from '../bench/prefill.ts'
import { type BenchResult, printResult } from '../bench/report.ts'
import { shapeFolder, shapeNames } from '../bench/shapes.ts'
import { benchStartup } from '../bench/startup.ts'
import { benchThroughput } from '../bench/throughput.ts'
import type { Span } from '../bench/workload.ts'
import type { Command } from '../command.ts'
import { cliError } from '../errors.ts'
import { ENGINE_GROUPS, type FlagGroup, TEMPERATURE } from '../flags.ts'
import { llmOptions } from '../llm-options.ts'
import { progressPrinter } from '../progress.ts'
import type { Settings } from '../settings.ts'
import { startModel } from '../start-model.ts'

const BENCH: FlagGroup = {
  title: 'Bench',
  flags: [
    {
      name: 'input-len',
      type: { kind: 'span' },
      help: 'tokens of a prompt; throughput: 100-1024 draws evenly',
      default: '128; prefill: 8192',
    },
    { name: 'output-len', type: { kind: 'span' }, help: 'tokens of an answer; throughput: 100-1024 draws evenly', default: '64' },
    { name: 'batch-size', type: { kind: 'count' }, help: 'latency: sequences at a time', default: '1' },
    { name: 'num-prompts', type: { kind: 'count' }, help: 'throughput: requests in all', default: '64' },
    {
      name: 'repeat',
      type: { kind: 'count' },
      help: 'times that each measurement is made; the median is printed',
      default: '3; throughput: 1; prefill: 7',
    },
    TEMPERATURE,
    { name: 'json', type: { kind: 'boolean' }, help: 'print one line of JSON instead', default: 'false' },
  ],
}

const KINDS = ['latency', 'throughput', 'prefill', 'startup'] as const

export const benchCommand: Command = {
  name: 'bench',
  usage: `bench ${KINDS.join('|')} MODEL`,
  summary: `Measures the whole pass, beside what the memory and the arithmetic units of this machine allow. MODEL may be a shape with random weights: ${shapeNames().join(', ')}.`,
  groups: [BENCH, ...ENGINE_GROUPS],
  async run({ settings, positionals }) {
    const [what, ...rest] = positionals
    const kind = KINDS.find((k) => k === what)
    if (!kind)
      throw cliError(
        'BAD_COMMAND',
        `aphrodite bench measures ${KINDS.slice(0, -1).join(', ')} or ${KINDS.at(-1)}, not ${what === undefined ? 'nothing' : `"${what}"`}`,
      )
    const given = llmOptions(rest, settings, 'bench')
    const folder = shapeFolder(given.model)
    const options: LLMOptions = { skipTokenizerInit: true, ...given, ...(folder !== undefined && { model: folder, loadFormat: 'dummy' }) }
    const result = await measure(kind, options, settings)
    const named: BenchResult = { ...result, configuration: { ...result.configuration, model: given.model } }
    if (settings.get('json')) console.log(JSON.stringify(named))
    else printResult(named)
    return 0
  },
}

async function measure(kind: (typeof KINDS)[number], options: LLMOptions, settings: Settings): Promise<BenchResult> {
  const number = (name: string, fallback: number): number => (settings.get(name) as number | undefined) ?? fallback
  const span = (name: string, fallback: number): Span => (settings.get(name) as Span | undefined) ?? [fallback, fallback]
  const [temperature, seed] = [number('temperature', 0), number('seed', 0)]
  const length = (name: string, fallback: number): number => {
    const [least, most] = span(name, fallback)
    if (least !== most) throw cliError('BAD_FLAG', `--${name} should be one number for ${kind}; ${least}-${most} is for throughput`)
    return least
  }
  if (kind === 'startup' && options.tensorParallelSize !== 1 && rankFromEnvironment(process.env))
    throw cliError('BAD_COMMAND', 'aphrodite bench startup starts its ranks itself, as often as it measures: run it without a launcher')
  if (kind === 'startup') return benchStartup(options, number('repeat', 3))
  const [inputLen, outputLen] = [span('input-len', kind === 'prefill' ? 8192 : 128), span('output-len', 64)]
  if (kind === 'throughput') {
    const numPrompts = number('num-prompts', 64)
    const repeat = number('repeat', 1)
    return withModel(options, (llm) => benchThroughput(llm, { inputLen, outputLen, numPrompts, repeat, temperature, seed }))
  }
  const one = length('input-len', kind === 'prefill' ? 8192 : 128)
  if (kind === 'prefill') return withModel(options, (llm) => benchPrefill(llm, { inputLen: one, repeat: number('repeat', 7), seed }))
  const answer = length('output-len', 64)
  if (answer < 2) throw cliError('BAD_FLAG', '--output-len should be at least 2 for latency, which is the time between two tokens')
  const sizes = { inputLen: one, outputLen: answer, batchSize: number('batch-size', 1), repeat: number('repeat', 3) }
  return withModel(options, (llm) => benchLatency(llm, { ...sizes, temperature, seed }))
}

async function withModel<T>(options: LLMOptions, fn: (llm: LLM) => Promise<T>): Promise<T> {
  const llm = await startModel({ ...options, onProgress: progressPrinter() })
  try {
    return await fn(llm)
  } finally {
    await llm.close()
  }
}
