import type { Communicator, Tensor } from '@aphrodite/tensor'
import { testingError } from './errors.ts'

interface Exchange {
  readonly op: 'allReduce' | 'allGather'
  readonly rows: number
  readonly columns: number
  readonly values: Float32Array
}

const PAUSE = Symbol('waits for the other ranks')

/**
 * Runs a synchronous program on `size` ranks in one thread and returns what each returned. A rank that needs the others
 * stops; when all have come that far, everything is run again from the start with the result at hand. So `run` has to do the
 * same every time, and its cost grows with the square of its collectives: it is for tests. A rank's communicator is the same
 * object in every run. Throws LOCKSTEP where the ranks do not call the same collectives with the same shapes.
 */
export function lockstep<T>(size: number, run: (tp: Communicator) => T): T[] {
  const done: Exchange[] = []
  const ranks = Array.from({ length: size }, (_, rank) => new Rank(rank, size, done))
  for (;;) {
    const results = ranks.flatMap((rank) => rank.advance(run))
    if (results.length === size) return results
    const waiting = ranks.flatMap((rank) => rank.waiting ?? [])
    const [first] = waiting
    const alike = (w: Exchange) => w.op === first!.op && w.rows === first!.rows && w.columns === first!.columns
    if (waiting.length < size || !waiting.every(alike)) {
      const wants = ranks.map(({ waiting: w }) => (w ? `${w.op} [${w.rows}, ${w.columns}]` : 'nothing'))
      throw testingError('LOCKSTEP', `after ${done.length} collectives the ranks want ${wants.join(', ')}`)
    }
    done.push({ ...first!, values: first!.op === 'allReduce' ? sum(waiting) : sideBySide(waiting) })
  }
}

class Rank implements Communicator {
  readonly rank: number
  readonly size: number
  readonly handle = 0
  readonly #done: readonly Exchange[]
  #next = 0
  waiting: Exchange | undefined

  constructor(rank: number, size: number, done: readonly Exchange[]) {
    this.rank = rank
    this.size = size
    this.#done = done
  }

  /** What the program returns, or nothing when it waits. */
  advance<T>(run: (tp: Communicator) => T): T[] {
    this.#next = 0
    this.waiting = undefined
    try {
      return [run(this)]
    } catch (e) {
      if (e !== PAUSE) throw e
      return []
    }
  }

  allReduce(x: Tensor): void {
    this.#exchange('allReduce', x, x)
  }

  allGather(out: Tensor, x: Tensor): void {
    this.#exchange('allGather', out, x)
  }

  abort(reason: string): void {
    throw testingError('LOCKSTEP', `rank ${this.rank} gave up: ${reason}`)
  }

  close(): void {}

  #exchange(op: Exchange['op'], out: Tensor, x: Tensor): void {
    const result = this.#done[this.#next++]
    if (!result) {
      this.waiting = { op, rows: x.rows, columns: x.lastDim, values: x.device.download(x) as Float32Array }
      throw PAUSE
    }
    out.device.upload(out, result.values)
  }
}

const sum = (parts: readonly Exchange[]): Float32Array =>
  parts[0]!.values.map((_, i) => parts.reduce((total, p) => total + p.values[i]!, 0))

function sideBySide(parts: readonly Exchange[]): Float32Array {
  const { rows, columns } = parts[0]!
  const all = new Float32Array(rows * columns * parts.length)
  for (let r = 0; r < rows; r++)
    for (const [i, p] of parts.entries()) all.set(p.values.subarray(r * columns, (r + 1) * columns), (r * parts.length + i) * columns)
  return all
}
