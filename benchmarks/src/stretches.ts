// Measuring in stretches in which no other process uses the cores: /proc/stat says what they do.
import { readFileSync } from 'node:fs'

/** Above this many cores in use by others a repetition counts as disturbed. */
export const NOISY = 0.1

/** Cores that other processes have used, and that the host of a virtual machine has taken away. */
export interface Disturbance {
  readonly others: number
  readonly steal: number
}

/** Busy time of the whole machine and stolen time, in core-seconds; undefined where the system does not say (not Linux). */
function machineTime(): { busy: number; steal: number } | undefined {
  try {
    const fields = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0]!.trim().split(/\s+/).slice(1).map(Number)
    const [user, nice, system, , , irq, softirq, steal] = fields as [number, number, number, number, number, number, number, number]
    return { busy: (user + nice + system + irq + softirq) / 100, steal: steal / 100 }
  } catch {
    return undefined
  }
}

/** Starts watching; what it returns says what others have done since. */
export function watch(): () => Disturbance {
  const before = machineTime()
  const own = process.cpuUsage()
  const start = performance.now()
  return () => {
    const seconds = (performance.now() - start) / 1000
    const after = machineTime()
    if (!before || !after) return { others: 0, steal: 0 }
    const used = process.cpuUsage(own)
    return {
      others: Math.max(0, (after.busy - before.busy - (used.user + used.system) / 1e6) / seconds),
      steal: (after.steal - before.steal) / seconds,
    }
  }
}

/** Returns when others are quiet, or after so many seconds. */
export async function waitForQuiet(seconds: number): Promise<void> {
  const end = performance.now() + seconds * 1000
  for (;;) {
    const stop = watch()
    await new Promise((resolve) => setTimeout(resolve, 600))
    if (stop().others < NOISY || performance.now() > end) return
  }
}

/**
 * Repeats f until `times` repetitions went undisturbed or `wait` seconds are over; returns the least disturbed ones. f gets a
 * function that says whether others have begun to use the cores: it may give up then, and return nothing.
 */
export async function repeat<T extends object>(
  f: (giveUp: () => boolean) => Promise<T | undefined>,
  times: number,
  wait: number,
): Promise<(T & Disturbance)[]> {
  const all: (T & Disturbance)[] = []
  const end = performance.now() + wait * 1000
  while (all.filter((x) => x.others < NOISY).length < times) {
    const late = performance.now() > end
    if (late && all.length >= times) break
    await waitForQuiet(Math.max(0, (end - performance.now()) / 1000))
    let disturbed = false
    let last = watch()
    const timer = setInterval(() => {
      disturbed ||= last().others > 3 * NOISY
      last = watch()
    }, 500)
    const stop = watch()
    const result = await f(() => disturbed && !late).finally(() => clearInterval(timer))
    if (result) all.push({ ...result, ...stop() })
  }
  return all.sort((x, y) => x.others - y.others).slice(0, times)
}
