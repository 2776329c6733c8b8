import { availableParallelism, cpus } from 'node:os'
import type { DeviceLimits, LLM, LLMInfo } from '@aphrodite/llm'
import { PAGE_TOKENS } from '@aphrodite/tensor'
import { gigabytes, thousands } from '../progress.ts'

/** One measurement with everything that it depends on. */
export interface BenchResult {
  readonly benchmark: string
  readonly configuration: Readonly<Record<string, string | number>>
  readonly figures: Readonly<Record<string, number>>
}

/** What a stretch of work read from memory and computed, in bytes and floating-point operations. */
export interface Work {
  readonly bytes: number
  readonly flops: number
}

/** Of one decode step: the weights once, and the cache of every sequence. `contexts` has their lengths. */
export function decodeWork(info: LLMInfo, contexts: readonly number[]): Work {
  const seen = contexts.reduce((sum, n) => sum + n, 0)
  return {
    bytes: info.bytesPerStep + contexts.reduce((sum, n) => sum + cacheBytes(info, n), 0),
    flops: contexts.length * info.flopsPerToken + seen * info.flopsPerTokenSeen,
  }
}

/** Of prompts computed in one piece each; the head is left out, as it computes one row a prompt. */
export function prefillWork(info: LLMInfo, prompts: readonly number[]): Work {
  const tokens = prompts.reduce((sum, n) => sum + n, 0)
  const seen = prompts.reduce((sum, n) => sum + (n * (n + 1)) / 2, 0)
  return { bytes: info.bytesPerStep, flops: tokens * info.flopsPerToken + seen * info.flopsPerTokenSeen }
}

/** Keys and values that a token behind `context` others looks at. */
export const cacheBytes = ({ ledger }: LLMInfo, context: number): number =>
  ledger.groups.reduce(
    (sum, g) => (g.kind === 'paged' ? sum + (g.blockBytes / PAGE_TOKENS) * (g.window ? Math.min(g.window, context) : context) : sum),
    0,
  )

/** What the same run measured of the machine. */
export const limitFigures = ({ readBytesPerSecond, flops }: DeviceLimits): Record<string, number> => ({
  readGBs: readBytesPerSecond / 1e9,
  peakTFLOPs: flops / 1e12,
})

export function configuration(llm: LLM, more: Record<string, number | string>): BenchResult['configuration'] {
  const { model, architecture, device, deviceKind, dtype, kvCacheDtype, threads, parameters, ledger, maxModelLen, freeMemory } = llm.info
  return {
    model,
    architecture,
    parameters,
    device,
    dtype,
    kvCacheDtype,
    ...(deviceKind === 'cpu' && { threads }),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    node: process.version,
    maxModelLen,
    weightBytes: ledger.weights,
    workspaceBytes: ledger.workspace,
    cacheBytes: ledger.cache,
    freeBytes: freeMemory,
    ...more,
  }
}

export function printResult({ benchmark, configuration: config, figures }: BenchResult): void {
  console.log(`bench ${benchmark}`)
  for (const [key, value] of Object.entries(config)) {
    const shown = typeof value !== 'number' ? value : key.endsWith('Bytes') ? gigabytes(value) : thousands(value)
    console.log(`  ${key.padEnd(26)}${shown}`)
  }
  console.log('')
  for (const [key, value] of Object.entries(figures)) {
    const shown = /Of[A-Z]/.test(key)
      ? `${(value * 100).toFixed(1)} %`
      : value >= 1000
        ? thousands(Math.round(value))
        : value.toPrecision(4)
    console.log(`  ${key.padEnd(26)}${shown}`)
  }
}
