import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { EngineSetup } from '../engine-host.ts'
import type { RankPlace } from './place.ts'

/** What a process that becomes a rank is told on its standard input, which stays open for as long as rank 0 lives. */
export interface ChildOrder {
  readonly place: RankPlace
  readonly setup: EngineSetup
  readonly rankTimeout: number
}

/** How long a rank that should end may take, and one of which nothing can be expected any more. */
const [END_MS, FAILED_MS] = [5000, 1500]

/** Ranks 1, 2, … as processes of this one. */
export class ChildRanks {
  readonly #children: ChildProcess[] = []

  /** onExit: one has ended, for this reason. print: a line that one has written. */
  constructor(
    order: Omit<ChildOrder, 'place'>,
    place: RankPlace,
    onExit: (rank: number, why: string) => void,
    print: (line: string) => void,
  ) {
    const entry = fileURLToPath(new URL('./rank-process.js', import.meta.url))
    // A debugger of this process has taken its port.
    const flags = process.execArgv.filter((flag) => !flag.startsWith('--inspect'))
    for (let rank = 1; rank < place.size; rank++) {
      const child = spawn(process.execPath, [...flags, entry], { stdio: ['pipe', 'pipe', 'pipe'] })
      this.#children.push(child)
      let ended = false
      const end = (why: string) => {
        if (!ended) onExit(rank, why)
        ended = true
      }
      child.once('error', (error) => end(error.message))
      child.once('exit', (code, signal) => end(signal ? `its process was ended by ${signal}` : `its process ended with status ${code}`))
      for (const stream of [child.stdout, child.stderr])
        createInterface({ input: stream }).on('line', (line) => print(`[rank ${rank}] ${line}`))
      child.stdin.on('error', () => {}) // it has ended, which is said elsewhere
      child.stdin.write(`${JSON.stringify({ ...order, place: { ...place, rank } } satisfies ChildOrder)}\n`)
    }
  }

  /** Waits until all have ended, and ends those that do not. */
  async ended(): Promise<void> {
    const running = this.#children.filter((child) => child.exitCode === null && child.signalCode === null && child.pid !== undefined)
    const all = Promise.all(running.map((child) => new Promise<void>((resolve) => child.once('exit', () => resolve()))))
    const kill = setTimeout(() => this.kill(), END_MS)
    await all
    clearTimeout(kill)
  }

  /** Those that have not ended by themselves soon, since one has failed, are ended. */
  killSoon(): void {
    setTimeout(() => this.kill(), FAILED_MS).unref()
  }

  kill(): void {
    for (const child of this.#children) child.kill('SIGKILL')
  }
}
