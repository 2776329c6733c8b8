import { createHash, randomBytes } from 'node:crypto'
import type { EngineSizes } from '@aphrodite/engine'
import type { DeviceShare } from '../devices.ts'
import { llmError } from '../errors.ts'
import type { ResolvedOptions } from '../options.ts'
import { count, list, record, text } from './frames.ts'
import type { RankGroup } from './group.ts'
import { type Machine, thisMachine } from './machine.ts'

/** Options that all ranks have to have alike: with others they would not schedule, load or compute the same. */
const ALIKE = [
  'dtype',
  'kvCacheDtype',
  'loadFormat',
  'maxModelLen',
  'maxNumSeqs',
  'maxNumBatchedTokens',
  'enablePrefixCaching',
  'captureAtStart',
  'quantization',
  'seed',
] as const

/** What a rank knows of itself when it starts. */
interface Introduction {
  readonly machine: Machine
  /** Of config.json. */
  readonly config: string
  /** By name, as JSON. */
  readonly options: Readonly<Record<string, string>>
  /** Seeds of requests that bring none come from it: rank 0's counts. */
  readonly seed: number
}

/** How a rank stands among those that share its machine. */
export interface Meeting {
  /** Which of the ranks that divide these cores, and these GPUs. */
  readonly cores: DeviceShare
  readonly gpus: DeviceShare
  /** How many ranks take memory from this machine. */
  readonly sharingMemory: number
  /** All ranks see the same shared memory. */
  readonly sharedMemory: boolean
  readonly seed: number
}

const isText = text(200)
const isIntroduction = record({
  machine: record({ memory: isText, cores: isText, gpus: isText }),
  config: isText,
  options: (v) => typeof v === 'object' && v !== null && Object.entries(v).every(([k, o]) => isText(k) && isText(o)),
  seed: count(0xffffffff),
})
const read =
  <T>(check: (value: unknown) => boolean) =>
  (value: unknown): T | undefined =>
    check(value) ? (value as T) : undefined

/** Ranks see what they have in common. Throws BAD_RANK where they were started for different things. */
export async function meet(
  group: RankGroup,
  config: Readonly<Record<string, unknown>>,
  options: Omit<ResolvedOptions, 'onProgress'>,
): Promise<Meeting> {
  const mine: Introduction = {
    machine: thisMachine(),
    config: createHash('sha256').update(JSON.stringify(config)).digest('hex'),
    options: Object.fromEntries(ALIKE.map((name) => [name, JSON.stringify(options[name]) ?? 'unset'])),
    seed: options.seed ?? randomBytes(4).readUInt32LE(0),
  }
  const all = await group.exchange('introduction', mine, read<Introduction>(isIntroduction))
  const [first] = all as readonly [Introduction, ...Introduction[]]
  for (const [rank, other] of all.entries()) {
    if (other.config !== first.config) throw llmError('BAD_RANK', `rank ${rank} has another model's config.json than rank 0`)
    const name = ALIKE.find((n) => other.options[n] !== first.options[n])
    if (name !== undefined)
      throw llmError('BAD_RANK', `rank ${rank} was started with ${name} ${other.options[name]}, rank 0 with ${first.options[name]}`)
  }
  const share = (what: 'cores' | 'gpus'): DeviceShare => {
    const dividing = [...all.keys()].filter((rank) => all[rank]!.machine[what] === mine.machine[what])
    return { index: dividing.indexOf(group.rank), of: dividing.length }
  }
  return {
    cores: share('cores'),
    gpus: share('gpus'),
    sharingMemory: all.filter((other) => other.machine.memory === mine.machine.memory).length,
    sharedMemory: all.every((other) => other.machine.memory === first.machine.memory),
    seed: first.seed,
  }
}

const isSizes = record({ blocks: list(count(2 ** 40), 1024), maxModelLen: count(2 ** 40) })

/** What each rank could have for its cache. */
export const exchangeSizes = (group: RankGroup, mine: EngineSizes): Promise<readonly EngineSizes[]> =>
  group.exchange('sizes', mine, read<EngineSizes>(isSizes))

/** Returns when every rank has come so far. */
export async function waitForAll(group: RankGroup, what: string): Promise<void> {
  await group.exchange(
    what,
    true,
    read<boolean>((v) => v === true),
  )
}

export const exchangeText = (group: RankGroup, topic: string, mine: string): Promise<readonly string[]> =>
  group.exchange(topic, mine, read<string>(text(4096)))
