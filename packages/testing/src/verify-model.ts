import type { ConfigJson } from '@aphrodite/layers'
import type { Model } from '@aphrodite/models'
import type { RandomTensor } from './checkpoint.ts'
import { testingError } from './errors.ts'

export interface VerifyModelOptions {
  /**
   * A folder with config.json, *.safetensors and reference.safetensors: a tiny checkpoint, and what the original
   * implementation computes of it (docs/guides/make_reference.py makes one of any Hugging Face model). Without it the model
   * is compared with itself alone, on other devices and in other batches.
   */
  readonly reference?: string
  /** config.json of a tiny model, whose weights are random numbers. Default: the reference's. */
  readonly config?: ConfigJson
  /**
   * Names and shapes of the random checkpoint, as published ones have them. Default: what the model's layers ask for; a
   * `loadWeights` or `weightName` of the model's own is not run then.
   */
  readonly tensors?: Readonly<Record<string, RandomTensor>>
  /** Default: the first of config.json's `architectures`. */
  readonly architecture?: string
  /** Tensor parallel sizes. More than there are heads are left out, and the report says so. Default [2, 3]. */
  readonly ranks?: readonly number[]
  /** The longest sequence that is compared, answer included; prompts are cut to it. Default 96, or what the model allows. */
  readonly maxTokens?: number
  readonly seed?: number
  /** false: do not look for a GPU. Default true: use it if there is one. */
  readonly cuda?: boolean
  /** false: return the report whatever it says. Default true: throw. */
  readonly assert?: boolean
}

/** One way of running the model, and how far it was from what it should give. */
export interface ConformanceRun {
  /** `cpu float32, in chunks of 7` */
  readonly name: string
  /** What it was compared with: the name of another run, or a file. */
  readonly against: string
  /** ‖logits − expected‖ / ‖expected‖ at the worst position, or the greatest difference of log-probabilities; null: it did not run. */
  readonly error: number | null
  /** The most that it may be. 0: bit for bit. */
  readonly limit: number
  readonly passed: boolean
  /** Where it differs first and by how much, or what it threw, or why it was left out. */
  readonly note?: string
}

export interface ConformanceReport {
  readonly architecture: string
  readonly passed: boolean
  readonly runs: readonly ConformanceRun[]
  /** A sentence for each run that did not pass, the first one first. */
  readonly problems: readonly string[]
}

/**
 * Runs a model in every way that an engine would and compares: a tiny checkpoint of random numbers (and the one of
 * `reference`, with its original's logits), on the reference backend, the CPU and, where there is one, a GPU, in float32 and
 * bfloat16; at once, in chunks and token by token; shared among 2 and 3 ranks; and in the engine, alone, in a crowd, with
 * prefix hits, with preemption, and with steps that overlap. On the CPU everything but ranks and dtypes is compared bit for bit.
 * Every step is held to the contract of `@aphrodite/layers`: shapes, no promises, no tensor kept from an earlier step.
 *
 * `model`: what `defineModel` returns, or a class that extends CausalLM; or the name of a registered architecture. Throws
 * NOT_CONFORMING, with a sentence for every run that differs and the report in `report`, unless `assert` is false. Seconds.
 */
export async function verifyModel(model: Model | string, options: VerifyModelOptions = {}): Promise<ConformanceReport> {
  // What the kit runs is loaded with it: this package serves tests of kernels too, which need none of that.
  const { conformanceOf } = await import('./conformance/conformance.ts')
  const report = await conformanceOf(model, options)
  if (report.passed || options.assert === false) return report
  throw Object.assign(testingError('NOT_CONFORMING', `${report.architecture}: ${report.problems.join('\n')}`), { report })
}

/** The report as a table for people, one line a run. */
export function formatReport({ architecture, passed, runs }: ConformanceReport): string {
  const measured = ({ error, limit, against }: ConformanceRun): string =>
    `${limit === 0 ? (error === 0 ? 'equal to' : 'not equal to') : `${error!.toExponential(1)} of at most ${limit} from`} ${against}`
  const line = (run: ConformanceRun): string => {
    const { name, error, note } = run
    const mark = !run.passed ? 'FAIL' : error === null ? 'skip' : 'ok  '
    const told = [error === null ? [] : measured(run), error === null || !run.passed ? (note ?? []) : []].flat()
    return `  ${mark} ${name}: ${told.join('; ')}`
  }
  return [`${architecture}: ${passed ? 'conforms' : 'does NOT conform'}`, ...runs.map(line)].join('\n')
}
