import { availableParallelism, cpus } from 'node:os'
import { limitsOf, readText } from './cgroup.ts'

/**
 * The cores of `allowed`, those first that share no physical core with an earlier one: two threads on the halves of one core
 * are slower than one. `physical` is how many those are.
 */
export function orderCores(
  allowed: readonly number[],
  siblingsOf: (core: number) => string | undefined = (core) => readText(`/sys/devices/system/cpu/cpu${core}/topology/thread_siblings_list`),
): { cores: number[]; physical: number } {
  const seen = new Set<string>()
  const first: number[] = []
  const second: number[] = []
  for (const core of allowed) {
    const siblings = siblingsOf(core) ?? String(core)
    ;(seen.has(siblings) ? second : first).push(core)
    seen.add(siblings)
  }
  return { cores: [...first, ...second], physical: first.length }
}

/** Which of several processes, and how many they are. */
export interface CoreShare {
  readonly index: number
  readonly of: number
}

/** A process's part of ordered cores: physical ones, and the second halves of as many. With fewer cores than processes they overlap. */
export function partOfCores<T>({ cores, physical }: { cores: readonly T[]; physical: number }, { index, of }: CoreShare) {
  if (of > physical) return { cores: [cores[index % physical]!], physical: 1 }
  const part = (list: readonly T[]): T[] => list.slice(Math.floor((index * list.length) / of), Math.floor(((index + 1) * list.length) / of))
  const first = part(cores.slice(0, physical))
  return { cores: [...first, ...part(cores.slice(physical))], physical: first.length }
}

/** How many threads to start when nobody says: one a physical core, no more than what the process may use at a time. */
export function defaultThreads(physical: number): number {
  const shares = limitsOf('cpu', 'cpu.max', 'cpu.cfs_quota_us').map(({ folder, text }) => {
    const [quota, period] = text.includes(' ') ? text.split(' ') : [text, readText(`${folder}/cpu.cfs_period_us`)]
    const share = Math.ceil(Number(quota) / Number(period ?? 100_000))
    return share > 0 ? share : Number.POSITIVE_INFINITY // "max" and -1 are no limit
  })
  return Math.max(1, Math.min(physical, availableParallelism(), ...shares))
}

/** `AMD EPYC`: the processor's name without what every processor's name has. */
export function processorName(): string {
  const model = cpus()[0]?.model ?? process.arch
  return model
    .replace(/\((R|TM)\)|\bCPU\b|\bProcessor\b|\b\d+-Core\b|@.*$/gi, '')
    .replace(/\s+/g, ' ')
    .trim()
}
