import { type Device, measuringDevice, type NativeOps, nativeKernels } from '@aphrodite/tensor'
import type { CudaDevice } from './device.ts'
import type { FusedFits } from './fused-kernels.ts'
import { fusedNormsFits } from './fused-norms.ts'
import { fuse } from './fusion.ts'
import { packedBytes, pageBytes } from './layouts.ts'
import { Recorder } from './recorder.ts'
import { type CallText, textOf } from './step-text.ts'

/** A step as a model enqueues it, and as it is launched. */
export interface StepTrace {
  readonly before: readonly CallText[]
  /** With the names of the rules that made each call of what was there before; none: as it was. */
  readonly after: readonly (CallText & { readonly rules: readonly string[] })[]
  /** How often each rule was applied. */
  readonly applied: ReadonlyMap<string, number>
}

/** Writes steps down without doing them: its device gives out addresses and computes nothing. A model is materialised and run on it. */
export class StepTracer {
  readonly device: Device
  readonly #recorder: Recorder
  readonly #fits: FusedFits

  /** gpu: whose choice of linear kernels is asked for; without one an H100's is assumed. */
  constructor(gpu?: CudaDevice) {
    const measuring = measuringDevice(gpu ?? paperDevice)
    const nothing = new Proxy({}, { get: () => () => {} }) as NativeOps
    this.#recorder = new Recorder(nativeKernels(nothing, 0))
    this.#fits = gpu ? { ...assumedFits, linear: gpu.fits.linear } : assumedFits
    // Small values that a model uploads and reads back, as a number rounded to its dtype, are no numbers of the step.
    const small = new Map<number, Float32Array>()
    this.device = {
      ...measuring,
      kernels: this.#recorder.kernels,
      upload(dst, src) {
        if (src instanceof Float32Array && src.length <= 16) small.set(dst.address, src.slice())
      },
      download: (src) => small.get(src.address)?.slice() ?? measuring.download(src),
    }
  }

  /** The calls that `enqueue` makes. */
  trace(enqueue: () => void): StepTrace {
    const calls = this.#recorder.record(enqueue)
    const { entries, applied } = fuse(calls, { fits: this.#fits, layout: this.device })
    return { before: calls.map(textOf), after: entries.map(({ call, rules }) => ({ ...textOf(call), rules })), applied }
  }
}

/** What there are kernels for, on an H100 at least: the limits of `linear_small.cu` and `attention_decode.cu`. */
const assumedFits: FusedFits = {
  linear(_out, x, { format }, { norm }) {
    const tokens = x.dim(0)
    return format !== 'f32' && (norm ? tokens <= 4 : tokens <= 16 && x.dtype === format)
  },
  norms: (...call) => fusedNormsFits(...call),
  attention(_out, q, k, v, { shape }) {
    const { dtype, keyDim, valueDim } = shape
    const dims = [keyDim, valueDim].every((dim) => dim <= 256 && dim % 8 === 0)
    return dims && dtype !== 'f32' && [q, k, v].every((t) => t.dtype === dtype)
  },
  rotaryWrite: () => true,
}

/** A CUDA device's layouts where there is none. */
const paperDevice = {
  kind: 'cuda',
  description: 'cuda (none here: the kernels of an H100 are assumed)',
  asynchronous: true,
  supports: (dtype) => dtype === 'f32' || dtype === 'bf16' || dtype === 'f16',
  memory: () => ({ total: 0, free: 0 }),
  packedBytes,
  pageBytes,
} as const satisfies Partial<Device> as unknown as Device
