/** The middle one; of an even count the mean of both. */
export function median(xs: readonly number[]): number {
  const s = xs.toSorted((a, b) => a - b)
  const h = s.length >> 1
  return s.length % 2 ? s[h]! : (s[h - 1]! + s[h]!) / 2
}

export const round = (x: number, digits = 3): number => Number(x.toFixed(digits))

/** One line of a benchmark's output. */
export const print = (line: object): void => console.log(JSON.stringify(line))
