import type { MemoryInfo } from '@aphrodite/tensor'
import { limitsOf, readText } from './cgroup.ts'

const field = (text: string | undefined, name: string): number => Number(text?.match(new RegExp(`^${name}:?\\s+(\\d+)`, 'm'))?.[1] ?? 0)

/** Memory that this process may use: the machine's, or less where a control group says so. */
export function memoryInfo(): MemoryInfo {
  const machine = readText('/proc/meminfo')
  let total = field(machine, 'MemTotal') * 1024
  let free = field(machine, 'MemAvailable') * 1024
  for (const { folder, text } of limitsOf('memory', 'memory.max', 'memory.limit_in_bytes')) {
    const limit = Number(text)
    if (!(limit > 0 && limit < total)) continue // "max", or more than the machine has
    const used = Number(readText(`${folder}/memory.current`) ?? readText(`${folder}/memory.usage_in_bytes`) ?? 0)
    // Pages of files count as used, but the kernel drops them when memory is wanted.
    const stat = readText(`${folder}/memory.stat`)
    const droppable = field(stat, 'total_inactive_file') || field(stat, 'inactive_file')
    total = limit
    free = Math.min(free, Math.max(0, limit - used + droppable))
  }
  return { total, free }
}
