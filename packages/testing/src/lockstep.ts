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
 * same every time, and its cost grows with the square of its collectives: it is for tests. Throws LOCKSTEP where the ranks
 * do not call the same collectives with the same shapes.
 */
export function lockstep<T>(size: number, run: (tp: Communicator) => T): T[] {
  const done: Exchange[] = []
  for (;;) {
    const waiting: Exchange[] = []
    const results: T[] = []
    for (let rank = 0; rank < size; rank++) {
      let next = 0
      const exchange = (op: Exchange['op'], out: Tensor, x: Tensor): void => {
        const result = done[next++]
        if (result) {
          out.device.upload(out, result.values)
          return
        }
        waiting.push({ op, rows: x.rows, columns: x.lastDim, values: x.device.download(x) as Float32Array })
        throw PAUSE
      }
      const tp: Communicator = {
        rank,
        size,
        allReduce: (x) => exchange('allReduce', x, x),
        allGather: (out, x) => exchange('allGather', out, x),
      }
      try {
        results.push(run(tp))
      } catch (e) {
        if (e !== PAUSE) throw e
      }
    }
    if (results.length === size) return results
    const [first] = waiting
    const alike =
      waiting.length === size && waiting.every((w) => w.op === first!.op && w.rows === first!.rows && w.columns === first!.columns)
    if (!alike)
      throw testingError(
        'LOCKSTEP',
        `after ${done.length} collectives the ranks want ${waiting.map((w) => `${w.op} [${w.rows}, ${w.columns}]`)}`,
      )
    done.push({ ...first!, values: first!.op === 'allReduce' ? sum(waiting) : sideBySide(waiting) })
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
