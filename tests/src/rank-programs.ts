import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export const bin = fileURLToPath(new URL('../../packages/cli/bin/aphrodite.js', import.meta.url))

/** Processes that a process has started as ranks, in the order of their ids. */
export function ranksOf(pid: number): number[] {
  const found: number[] = []
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    try {
      const parent = /^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${entry}/status`, 'utf8'))?.[1]
      if (Number(parent) === pid && readFileSync(`/proc/${entry}/cmdline`, 'utf8').includes('rank-process')) found.push(Number(entry))
    } catch {
      // it has just ended
    }
  }
  return found.sort((a, b) => a - b)
}

export function lives(pid: number): boolean {
  try {
    return !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

/** Pieces of shared memory that ranks have left behind. */
export const leftovers = (): string[] => readdirSync('/dev/shm').filter((name) => name.includes('aphrodite'))

export interface Program {
  readonly child: ChildProcess
  /** What it has written, both ways. */
  readonly output: () => string
  readonly ended: Promise<number | null>
}

export function start(command: string, args: readonly string[], env: Record<string, string> = {}): Program {
  const child = spawn(command, args, { env: { ...process.env, APHRODITE_DEVICE: 'cpu', ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()))
  const ended = new Promise<number | null>((resolve) => {
    child.once('error', (error) => {
      output += error.message
      resolve(null)
    })
    child.once('close', (code) => resolve(code))
  })
  return { child, output: () => output, ended }
}

/** Whether a program is there; why not is for people to read. */
export function missing(command: string, args: readonly string[]): string | undefined {
  try {
    execFileSync(command, args, { stdio: 'pipe' })
    return undefined
  } catch (error) {
    return `${command}: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`
  }
}
