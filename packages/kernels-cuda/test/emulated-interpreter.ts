import { Arena, type Device, type PackedWeight, Tensor } from '@aphrodite/tensor'
import type { Entry } from '../src/fusion-list.ts'
import type { InterpretedCall, Stretch } from '../src/interpreter.ts'
import { launch, type StepOps } from '../src/step-list.ts'

/**
 * What the interpreter does, over a device's own ops: results pass from call to call in memory of its own, poisoned before, and
 * reach theirs where they are to be stored.
 */
export class EmulatedInterpreter {
  readonly #arena: Arena
  readonly #ops: StepOps
  readonly #device: Device

  constructor(device: Device, ops: StepOps) {
    this.#arena = new Arena(device, 1 << 20)
    this.#ops = ops
    this.#device = device
  }

  /** The step with its stretches interpreted. */
  run(entries: readonly Entry[], stretches: readonly Stretch[]): void {
    for (let i = 0; i < entries.length; i++) {
      const stretch = stretches.find((s) => s.from === i)
      if (!stretch) {
        launch(this.#ops, entries[i]!.call)
        continue
      }
      this.#interpret(stretch.calls)
      i = stretch.to - 1
    }
  }

  #interpret(calls: readonly InterpretedCall[]): void {
    const results: Tensor[] = []
    const holders = new Map<number | undefined, number>()
    const stores: (() => void)[] = []
    for (const { call, sources, buffer, stored } of calls) {
      const operand = (t: Tensor, n: number): Tensor => {
        const { op, offset } = sources[n]!
        if (op === 0) return t
        const from = results[op - 1]!
        const kept = calls[op - 1]!.buffer
        if (kept === undefined || holders.get(kept) !== op)
          throw new Error(`call ${results.length + 1} reads call ${op}, which is not kept`)
        return new Tensor(from.address + offset * (from.dtype === 'f32' ? 4 : 2), t.dtype, t.shape, t.strides, this.#arena, from.block)
      }
      const [out] = call.args
      const result = this.#arena.empty(out.shape, out.dtype)
      this.#device.upload(result, new Float32Array(result.size).fill(Number.NaN))
      if (call.op === 'fusedLinear') {
        const [, x, weight, extras] = call.args as [Tensor, Tensor, PackedWeight, { residual?: boolean }]
        if (extras.residual) this.#ops.copy(result, operand(out, 1))
        this.#ops.fusedLinear(result, operand(x, 0), weight, extras)
      } else {
        const [, q, k, v, ...rest] = call.args
        this.#ops.fusedAttention(result, operand(q, 0), operand(k, 1), operand(v, 2), ...rest)
      }
      results.push(result)
      holders.set(buffer, results.length)
      // As late as can be: a block may be that slow.
      if (stored) stores.push(() => this.#ops.copy(out, result))
    }
    for (const store of stores) store()
  }
}
