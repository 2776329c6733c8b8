import type { Activation, Tensor } from '@aphrodite/tensor'
import type { ConfigReader } from './config.ts'

/** What config.json calls them. */
const NAMES: Readonly<Record<string, Activation>> = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  gelu_new: 'geluTanh',
  gelu_fast: 'geluTanh',
  gelu_pytorch_tanh: 'geluTanh',
  gelu_tanh: 'geluTanh',
  relu: 'relu',
  relu2: 'relu2',
}

/** The activation that a key of config.json names. */
export function readActivation(c: ConfigReader, key: string, fallback?: string): Activation {
  const name = c.string(key, fallback)
  const activation = Object.hasOwn(NAMES, name) ? NAMES[name] : undefined
  if (!activation) throw c.error(`${key} is ${JSON.stringify(name)}; supported are ${Object.keys(NAMES).join(', ')}`)
  return activation
}

/** x [tokens, 2n] → [tokens, n]: activation of the first half times the second. */
export function activateAndMul(x: Tensor, activation: Activation): Tensor {
  const out = x.empty([x.dim(0), x.lastDim / 2])
  x.kernels.activateAndMul(out, x, activation)
  return out
}

/** x [tokens, 2n] → [tokens, n]: SwiGLU's silu(gate) · up. */
export const siluAndMul = (x: Tensor): Tensor => activateAndMul(x, 'silu')

/** x = activation(x); returns x. */
export function activate(x: Tensor, activation: Activation): Tensor {
  x.kernels.activate(x, x, activation)
  return x
}
