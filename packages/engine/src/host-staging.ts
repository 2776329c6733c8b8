import { type Device, Tensor, type Workspace } from '@aphrodite/tensor'

/** Sections start at multiples of ALIGNMENT bytes. */
const STEP = 64

/**
 * Many small tensors that cross to the device as one: sections of a host array that is reused from step to step, uploaded
 * into one block of the workspace.
 */
export class HostStaging<T extends Int32Array | Float32Array> {
  data: T
  #used = 0
  #block: Tensor | undefined

  constructor(data: T) {
    this.data = data
  }

  /** Forgets all sections. */
  begin(): void {
    this.#used = 0
    this.#block = undefined
  }

  /** Where a section of n elements starts in `data`, which may be another array afterwards. */
  section(n: number): number {
    const start = this.#used
    this.#used += Math.max(STEP, Math.ceil(n / STEP) * STEP)
    if (this.#used > this.data.length) {
      const larger = (this.data instanceof Int32Array ? new Int32Array(this.#used * 2) : new Float32Array(this.#used * 2)) as T
      larger.set(this.data)
      this.data = larger
    }
    return start
  }

  upload(workspace: Workspace, device: Device): void {
    this.#block = workspace.empty([this.#used], this.data instanceof Int32Array ? 'i32' : 'f32')
    device.upload(this.#block, this.data.subarray(0, this.#used))
  }

  /** After upload: n elements from `start`. */
  vector(start: number, n: number): Tensor {
    return this.#tensor(start, [n], [1])
  }
  matrix(start: number, rows: number, columns: number): Tensor {
    return this.#tensor(start, [rows, columns], [columns, 1])
  }

  #tensor(start: number, shape: number[], strides: number[]): Tensor {
    const { address, dtype, memory, block } = this.#block!
    return new Tensor(address + start * 4, dtype, shape, strides, memory, block)
  }
}
