/** Least and most of something that is drawn evenly. */
export type Span = readonly [least: number, most: number]

/** A 32-bit generator: the same workload for the same seed, on every machine. */
export function generator(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x9e3779b9) >>> 0
    let z = state
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
    return (z ^ (z >>> 16)) >>> 0
  }
}

/** A whole number of the span, drawn evenly. */
export const draw = ([least, most]: Span, random: () => number): number => least + (random() % (most - least + 1))

/** Token ids that share no beginning with those of another call, so that no prefix is found in the cache. */
export const randomPrompt = (length: number, vocabSize: number, random: () => number): number[] =>
  Array.from({ length }, () => random() % vocabSize)

export const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN
