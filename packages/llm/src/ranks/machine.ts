import { createHash } from 'node:crypto'
import { readFileSync, readlinkSync, statSync } from 'node:fs'
import { hostname } from 'node:os'

/** What ranks may have in common with others. Each text is the same for those that do. */
export interface Machine {
  /** They see the same shared memory. */
  readonly memory: string
  /** They may use the same cores, and so have to divide them. */
  readonly cores: string
  /** They see the same GPUs, as far as anybody has said which. */
  readonly gpus: string
}

const or = (read: () => string, otherwise: string): string => {
  try {
    return read().trim()
  } catch {
    return otherwise
  }
}
const digest = (...parts: readonly string[]): string => createHash('sha256').update(parts.join('\n')).digest('hex').slice(0, 32)

export function thisMachine(): Machine {
  const boot = or(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8'), hostname())
  // Containers of one machine have a folder of their own each, unless they are told to share it.
  const memory = or(() => String(statSync('/dev/shm').dev), '')
  // Who is tied to other cores, or has a share of the processor's time to itself, need not divide anything.
  const allowed = or(() => /^Cpus_allowed:\s*(\S+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '', '')
  const group = or(() => readlinkSync('/proc/self/ns/cgroup'), '')
  const gpus = process.env['CUDA_VISIBLE_DEVICES'] ?? ''
  return { memory: digest(boot, memory), cores: digest(boot, allowed, group), gpus: digest(boot, gpus, group) }
}
