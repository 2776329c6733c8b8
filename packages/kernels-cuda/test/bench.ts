import { Arena, type Device, type FloatDType, type Kernels, type PackedWeight, type Tensor, Workspace } from '@aphrodite/tensor'
import { createReferenceDevice, Random } from '@aphrodite/testing'
import { fuse } from '../src/fusion.ts'
import { Recorder } from '../src/recorder.ts'
import { everythingFits } from './emulated.ts'

/** A device that writes down, with a workspace and some weights. */
export class Bench {
  readonly reference = createReferenceDevice()
  readonly recorder = new Recorder(this.reference.kernels)
  readonly device: Device = { ...this.reference, kernels: this.recorder.kernels }
  readonly arena = new Arena(this.device, 1 << 16)
  readonly workspace = new Workspace(this.device, 1 << 16)
  readonly kernels: Kernels = this.device.kernels
  readonly random = new Random(1)
  readonly #temporaries: Tensor[] = []

  weight(n: number, k: number, dtype: FloatDType = 'f32'): PackedWeight {
    const w = this.arena.packed(n, k, dtype)
    const bytes = new Uint8Array(this.random.normals(n * k, k ** -0.5).buffer)
    this.reference.pack(w, { bytes, dtype: 'f32', shape: [n, k], strides: [k, 1] }, 0, 0)
    return w
  }
  vector(n: number): Tensor {
    const t = this.arena.empty([n], 'f32')
    this.reference.upload(t, this.random.normals(n, 0.1, 1))
    return t
  }
  temporary(...shape: number[]): Tensor {
    const t = this.workspace.empty(shape, 'f32')
    this.#temporaries.push(t)
    return t
  }
  /** The ops after fusion, with `keep` alone of all temporaries still live at the end. */
  fuse(enqueue: () => void, { keep = [] as readonly Tensor[], fits = everythingFits } = {}): string[] {
    const calls = this.recorder.record(enqueue)
    for (const t of this.#temporaries) t.block.live = keep.includes(t)
    return fuse(calls, { fits, layout: this.device }).entries.map((e) => e.call.op)
  }
}
