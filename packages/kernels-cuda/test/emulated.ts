import { Arena, type Device, type Kernels, type Tensor } from '@aphrodite/tensor'
import type { FusedFits, FusedOps, RotaryExtras } from '../src/fused-kernels.ts'
import type { StepOps } from '../src/step-list.ts'

/** Fused ops as what they stand for, over a device's own ops: the same bits, without a GPU. */
export function emulated(device: Device, kernels: Kernels = device.kernels): StepOps {
  const arena = new Arena(device, 1 << 20)
  const copyOf = (t: Tensor): Tensor => {
    const copy = arena.empty(t.shape, t.dtype)
    kernels.copy(copy, t)
    return copy
  }
  /** Queries and keys as attention wants them. */
  function turned(q: Tensor, k: Tensor, { positions, cosSin, options, norms }: RotaryExtras): void {
    if (norms) {
      kernels.rmsNorm(q, q, norms.q, norms.eps, norms.weightOffset)
      kernels.rmsNorm(k, k, norms.k, norms.eps, norms.weightOffset)
    }
    kernels.rotary(q, k, positions, cosSin, options)
  }
  const fused: FusedOps = {
    fusedLinear(out, x, weight, { bias, norm, residual, activation }) {
      let input = x
      if (norm) {
        input = arena.empty(x.shape, norm.weight.dtype)
        kernels.rmsNorm(input, x, norm.weight, norm.eps, norm.weightOffset)
      }
      const product = arena.empty([x.dim(0), weight.outFeatures], weight.format)
      kernels.linear(product, input, weight, bias)
      if (activation) kernels.activateAndMul(out, product, activation)
      else if (residual) addTo(kernels, arena, out, product)
      else if (product.dtype === out.dtype) kernels.copy(out, product)
      else kernels.linear(out, input, weight, bias)
    },
    fusedNorms(out, residual, x, first, second) {
      const added = arena.empty(x.shape, x.dtype)
      kernels.rmsNorm(added, x, first.weight, first.eps, first.weightOffset)
      kernels.addRmsNorm(out, residual, added, second.weight, second.eps, second.weightOffset)
    },
    fusedAttention(out, q, k, v, cache, batch, options, rotary) {
      const ownQ = copyOf(q)
      const ownK = copyOf(k)
      turned(ownQ, ownK, rotary)
      kernels.writeCache(cache, ownK, v, batch.slots)
      kernels.pagedAttention(out, ownQ, cache, batch, options)
    },
    fusedRotaryWrite(q, k, v, cache, slots, rotary) {
      const ownK = copyOf(k)
      turned(q, ownK, rotary)
      kernels.writeCache(cache, ownK, v, slots)
    },
  }
  return { ...kernels, ...fused, collective: (work) => work.launch() }
}

/** out += x, out of another type perhaps: the sum that addRmsNorm makes before its norm. */
function addTo(kernels: Kernels, arena: Arena, out: Tensor, x: Tensor): void {
  if (out.dtype === x.dtype) kernels.add(out, out, x)
  else kernels.addRmsNorm(arena.empty(x.shape, x.dtype), out, x, arena.empty([x.lastDim], x.dtype), 1, 0)
}

export const everythingFits: FusedFits = { linear: () => true, norms: () => true, attention: () => true, rotaryWrite: () => true }
