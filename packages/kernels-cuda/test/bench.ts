import { Arena, type Device, type FloatDType, type Kernels, type PackedWeight, type Tensor, Workspace } from '@aphrodite/tensor'
import { createReferenceDevice, Random } from '@aphrodite/testing'
import { fuse } from '../src/fusion.ts'
import { Recorder } from '../src/recorder.ts'
import { everythingFits } from './emulated.ts'

/** The device with other kernels. */
export function withKernels(device: Device, kernels: Kernels): Device {
  const own = (target: Device, name: keyof Device) => {
    const value = target[name]
    return typeof value === 'function' ? value.bind(target) : value
  }
  return new Proxy(device, { get: (target, name) => (name === 'kernels' ? kernels : own(target, name as keyof Device)) })
}

/** A device that writes down, with a workspace and some weights. */
export class Bench {
  /** Where ops are done. */
  readonly real: Device
  readonly recorder: Recorder
  readonly device: Device
  readonly arena: Arena
  readonly workspace: Workspace
  readonly kernels: Kernels
  readonly random = new Random(1)
  readonly temporaries: Tensor[] = []

  constructor(real: Device = createReferenceDevice(), bytes = 1 << 16) {
    this.real = real
    this.recorder = new Recorder(real.kernels)
    this.device = withKernels(real, this.recorder.kernels)
    this.kernels = this.recorder.kernels
    this.arena = new Arena(this.device, bytes)
    this.workspace = new Workspace(this.device, bytes)
  }

  weight(n: number, k: number, dtype: FloatDType = 'f32'): PackedWeight {
    const w = this.arena.packed(n, k, dtype)
    const bytes = new Uint8Array(this.random.normals(n * k, k ** -0.5).buffer)
    this.real.pack(w, { bytes, dtype: 'f32', shape: [n, k], strides: [k, 1] }, 0, 0)
    return w
  }
  vector(n: number): Tensor {
    const t = this.arena.empty([n], 'f32')
    this.real.upload(t, this.random.normals(n, 0.1, 1))
    return t
  }
  temporary(...shape: number[]): Tensor {
    const t = this.workspace.empty(shape, 'f32')
    this.temporaries.push(t)
    return t
  }
  /** The ops after fusion, with `keep` alone of all temporaries still live at the end. */
  fuse(enqueue: () => void, { keep = [] as readonly Tensor[], fits = everythingFits } = {}): string[] {
    const calls = this.recorder.record(enqueue)
    for (const t of this.temporaries) t.block.live = keep.includes(t)
    return fuse(calls, { fits, layout: this.device }).entries.map((e) => e.call.op)
  }
}
