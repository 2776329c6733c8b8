import type { TokenLogprob } from './protocol.ts'

type Numbers = Float32Array | Int32Array | Uint8Array

/** Row `row` of what Kernels.logProbs wrote, `width` columns wide, with the `n` likeliest tokens of them. */
export function logprobAt(values: Numbers, ids: Numbers, ranks: Numbers, row: number, width: number, n: number): TokenLogprob {
  const at = row * width
  const top: { tokenId: number; logprob: number }[] = []
  for (let i = 1; i <= n; i++) top.push({ tokenId: ids[at + i]!, logprob: values[at + i]! })
  return { tokenId: ids[at]!, logprob: values[at]!, rank: ranks[row]!, top }
}
