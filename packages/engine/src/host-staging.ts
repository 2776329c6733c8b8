import { type Device, Tensor, type Workspace } from '@aphrodite/tensor'

/** Sections start at multiples of ALIGNMENT bytes. */
const STEP = 64

/**
 * Many small tensors that cross to the device as one: sections of a host array that is reused from step to step, uploaded
 * into one block of the workspace. What nobody overwrites is still there in the next step.
 */
export class HostStaging {
  /** The same bytes, seen as either type. */
  ints: Int32Array
  floats: Float32Array
  #used = 0
  #block: Tensor | undefined

  constructor(words = 1024) {
    this.ints = new Int32Array(words)
    this.floats = new Float32Array(this.ints.buffer)
  }

  /** Forgets all sections. */
  begin(): void {
    this.#used = 0
    this.#block = undefined
  }

  /** Where a section of n elements starts in `ints` and `floats`, which may be other arrays afterwards. */
  section(n: number): number {
    const start = this.#used
    this.#used += Math.max(STEP, Math.ceil(n / STEP) * STEP)
    if (this.#used > this.ints.length) {
      const larger = new Int32Array(this.#used * 2)
      larger.set(this.ints)
      this.ints = larger
      this.floats = new Float32Array(larger.buffer)
    }
    return start
  }

  upload(workspace: Workspace, device: Device): void {
    this.#block = workspace.empty([this.#used], 'i32')
    device.upload(this.#block, this.ints.subarray(0, this.#used))
  }

  /** After upload: n elements from `start`. */
  vector(start: number, n: number, dtype: 'i32' | 'f32' = 'i32'): Tensor {
    const { address, memory, block } = this.#block!
    return new Tensor(address + start * 4, dtype, [n], [1], memory, block)
  }
  matrix(start: number, rows: number, columns: number): Tensor {
    const { address, memory, block } = this.#block!
    return new Tensor(address + start * 4, 'i32', [rows, columns], [columns, 1], memory, block)
  }
}
