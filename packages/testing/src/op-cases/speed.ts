import type { Device } from '@aphrodite/tensor'
import type { OpCase } from './case.ts'
import { activateAndMul, add, copy } from './elementwise.ts'
import { addRmsNorm, layerNorm, rmsNorm } from './norms.ts'
import { prepareOpCase } from './run.ts'
import { logProbs, sample } from './sampling.ts'

/** Calls of the size that a model of a billion parameters makes: a decode step of one and of eight sequences, a prefill, a sampler. */
export const SPEED_CASES: readonly OpCase[] = [
  ...[1, 8, 512].flatMap((rows) => [
    rmsNorm('bf16', [rows, 2048], undefined, 0),
    addRmsNorm('bf16', [rows, 2048]),
    addRmsNorm('bf16', [rows, 2048], undefined, 'f32'),
    layerNorm('bf16', [rows, 2048], undefined, true),
    add('bf16', [rows, 2048]),
    copy('bf16', 'f32', [rows, 2048]),
    activateAndMul('bf16', 'silu', rows, 8192),
    activateAndMul('bf16', 'geluTanh', rows, 8192),
  ]),
  ...[1, 8].flatMap((rows) => [
    ...['greedy', 'plain', 'top-k', 'top-p', 'min-p', 'mixed'].map((label) => sample(label, rows, 128_256)),
    logProbs(rows, 128_256, 20),
  ]),
]

/** Microseconds of one call of a case, many in a row: the median of seven measurements that take `seconds` together. */
export async function timeOpCase(opCase: OpCase, device: Device, seconds = 0.3): Promise<number> {
  const { run, memory } = prepareOpCase(opCase, device)
  const measure = async (calls: number): Promise<number> => {
    const start = performance.now()
    for (let i = 0; i < calls; i++) run()
    await device.synchronize()
    return performance.now() - start
  }
  try {
    let calls = 1
    let took = await measure(calls)
    while (took < 5) {
      calls *= 2
      took = await measure(calls)
    }
    const each = Math.max(1, Math.round((calls * (seconds * 1000)) / 7 / took))
    const times: number[] = []
    for (let i = 0; i < 7; i++) times.push((await measure(each)) / each)
    return times.sort((a, b) => a - b)[3]! * 1000
  } finally {
    memory.release()
  }
}
