import { existsSync, readFileSync } from 'node:fs'
import { availableParallelism, cpus, freemem, release, totalmem } from 'node:os'
import { probeDevices } from '@aphrodite/llm'
import type { Command } from '../command.ts'
import { gigabytes } from '../progress.ts'

export const doctorCommand: Command = {
  name: 'doctor',
  usage: 'doctor',
  summary: 'Says what this machine has and what stands in the way.',
  groups: [],
  async run() {
    const problems: string[] = []
    const line = (name: string, value: string) => console.log(`  ${name.padEnd(14)}${value}`)
    line('node', `${process.version} on ${process.platform} ${process.arch}, kernel ${release()}`)
    line('processor', `${cpus()[0]?.model.trim() ?? 'unknown'}, ${availableParallelism()} cores for this process`)
    line('memory', `${gigabytes(totalmem())}, ${gigabytes(freemem())} free`)
    const hugePages = '/sys/kernel/mm/transparent_hugepage/enabled'
    if (existsSync(hugePages)) {
      const mode = /\[(\w+)\]/.exec(readFileSync(hugePages, 'utf8'))?.[1] ?? 'unknown'
      line('huge pages', mode)
      if (mode === 'never') problems.push(`transparent huge pages are off, which costs decoding speed: echo madvise > ${hugePages}`)
    }
    for (const device of probeDevices()) {
      line(device.kind, device.available ? device.description : `not available: ${device.reason}`)
      if (device.kind === 'cpu' && !device.available) problems.push('the CPU kernels do not load: npm run build makes them')
    }
    for (const problem of problems) console.log(`\n  ! ${problem}`)
    console.log(problems.length ? '' : '\n  nothing stands in the way')
    return problems.length ? 1 : 0
  },
}
