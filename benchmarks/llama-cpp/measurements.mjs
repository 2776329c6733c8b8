// What is measured of llama.cpp: one sequence, a prompt, 8 sequences through node-llama-cpp, and 8 at the addon itself.
import { shape } from './shape.mjs'

export const PROMPT = 128
export const PREFILL = 512
export const SEQUENCES = 8
const WARM = 8
const GREEDY = { temperature: 0, yieldEogToken: true }

export const sorted = (xs) => [...xs].sort((x, y) => x - y)
export function median(xs) {
  const s = sorted(xs)
  const h = s.length >> 1
  return s.length % 2 ? s[h] : (s[h - 1] + s[h]) / 2
}
export const tokenIds = (n, seed) => Array.from({ length: n }, (_, i) => ((i + 1) * 7919 + seed * 104729) % (shape.vocab - 256))

/** The time and size of every llama_decode of a context. The addon's object is internal to node-llama-cpp, hence its name. */
export function spy(context) {
  const addon = context._ctx
  const calls = []
  let size = 0
  const { addToBatch, decodeBatch } = addon
  const replace = (name, value) => Object.defineProperty(addon, name, { value, configurable: true })
  replace('addToBatch', (sequence, position, tokens, logits) => {
    size += tokens.length
    return addToBatch.call(addon, sequence, position, tokens, logits)
  })
  replace('decodeBatch', async () => {
    const n = size
    const start = performance.now()
    size = 0
    await decodeBatch.call(addon)
    calls.push({ n, start, ms: performance.now() - start })
  })
  return calls
}

/** Leaves exactly these tokens in the sequence; evaluates those that are not there yet. */
export async function hold(sequence, ids) {
  const same = sequence.compareContextTokens(ids).firstDifferentIndex
  await sequence.eraseContextTokenRanges([{ start: same, end: sequence.nextTokenIndex }])
  if (same < ids.length) await sequence.evaluateWithoutGeneratingNewTokens(ids.slice(same))
}

/** ms a token, sampling and JavaScript included; engineMs: llama_decode alone. */
export async function decodeOne(sequence, calls, tokens, giveUp) {
  await hold(sequence, tokenIds(PROMPT - 1, 2))
  const times = []
  calls.length = 0
  let last = performance.now()
  for await (const _ of sequence.evaluate(tokenIds(1, 3), GREEDY)) {
    const now = performance.now()
    times.push(now - last)
    last = now
    if (giveUp()) return undefined
    if (times.length >= WARM + tokens) break
  }
  const kept = sorted(times.slice(WARM))
  const engineMs = median(calls.slice(WARM, WARM + tokens).map((c) => c.ms))
  return { ms: median(kept), engineMs, p10: kept[Math.floor(kept.length * 0.1)], p90: kept[Math.floor(kept.length * 0.9)] }
}

/** ms for the prompt, in one batch, without the head. */
export async function prefill(sequence, calls, seed) {
  await sequence.clearHistory()
  calls.length = 0
  const start = performance.now()
  await sequence.evaluateWithoutGeneratingNewTokens(tokenIds(PREFILL, seed))
  return { ms: performance.now() - start, engineMs: calls.reduce((sum, c) => sum + c.ms, 0) }
}

/** All sequences awaited together, batched by node-llama-cpp: tokens a second from when all are warm until the first is done. */
export async function decodeTogether(sequences, calls, tokens, giveUp) {
  await Promise.all(sequences.map((s, i) => hold(s, tokenIds(PROMPT - 1, i))))
  const stamps = sequences.map(() => [])
  calls.length = 0
  const run = async (sequence, i) => {
    for await (const _ of sequence.evaluate(tokenIds(1, i + 1), GREEDY)) {
      stamps[i].push(performance.now())
      if (giveUp() || stamps[i].length >= WARM + tokens) break
    }
  }
  await Promise.all(sequences.map(run))
  if (giveUp()) return undefined
  const from = Math.max(...stamps.map((x) => x[WARM - 1]))
  const to = Math.min(...stamps.map((x) => x.at(-1)))
  const count = stamps.flat().filter((t) => t > from && t <= to).length
  const inside = calls.filter((c) => c.start >= from && c.start + c.ms <= to)
  return { rate: (count / (to - from)) * 1000, batch: inside.reduce((sum, c) => sum + c.n, 0) / inside.length }
}

/** llama_decode with one token of each sequence in order: no sampling, no queue of node-llama-cpp. The kernels at their best. */
export async function decodeBare(context, sequences, calls, tokens, giveUp) {
  await Promise.all(sequences.map((s, i) => hold(s, tokenIds(PROMPT, i))))
  calls.length = 0
  for (let k = 0; k < WARM + tokens && !giveUp(); k++) {
    context._ctx.initBatch(SEQUENCES)
    for (const i of sequences.keys()) context._ctx.addToBatch(i, PROMPT + k, Uint32Array.from(tokenIds(1, i + k)), Uint32Array.of(0))
    await context._ctx.decodeBatch()
  }
  for (const i of sequences.keys()) context._ctx.removeTokenCellsFromSequence(i, PROMPT, PROMPT + WARM + tokens)
  if (giveUp()) return undefined
  const ms = median(calls.slice(WARM).map((c) => c.ms))
  return { ms, rate: (SEQUENCES / ms) * 1000 }
}
