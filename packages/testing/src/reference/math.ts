import type { Activation } from '@aphrodite/tensor'

/** 1 - erf(x), relative error below 1e-13 where the result is not denormal. */
export function erfc(x: number): number {
  if (x < 0) return 2 - erfc(-x)
  if (x < 2) {
    // erf(x) = 2 / sqrt(pi) · exp(-x²) · sum of 2^n x^(2n+1) / (2n+1)!!: all terms positive, nothing cancels.
    let term = x
    let sum = x
    for (let n = 1; term > sum * 1e-17; n++) {
      term *= (2 * x * x) / (2 * n + 1)
      sum += term
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum
  }
  // exp(-x²) / sqrt(pi) / (x + 1/2 / (x + 2/2 / (x + 3/2 / …))), from the far end.
  let tail = x
  for (let n = 200; n > 0; n--) tail = x + n / 2 / tail
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / tail
}

const SQRT_2_OVER_PI = Math.sqrt(2 / Math.PI)

export const ACTIVATIONS: Readonly<Record<Activation, (x: number) => number>> = {
  // -Infinity · 0 would be NaN.
  silu: (x) => (x < -700 ? 0 : x / (1 + Math.exp(-x))),
  gelu: (x) => (x < -40 ? 0 : 0.5 * x * erfc(-x / Math.SQRT2)),
  // 0.5 x (1 + tanh(u)), written so that nothing cancels for negative u.
  geluTanh: (x) => x / (1 + Math.exp(-2 * SQRT_2_OVER_PI * (x + 0.044715 * x * x * x))),
  relu: (x) => Math.max(x, 0),
  relu2: (x) => Math.max(x, 0) ** 2,
}
