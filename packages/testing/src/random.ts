/** A seeded stream of numbers (sfc32, 32 bits of state each): the same seed, the same stream, on every machine. */
export class Random {
  #a: number
  #b: number
  #c = 0x9e3779b9 | 0
  #counter = 1
  #spare: number | undefined

  constructor(seed: number) {
    this.#a = seed | 0
    this.#b = Math.floor(seed / 2 ** 32) | 0
    for (let i = 0; i < 12; i++) this.word()
  }

  /** A whole number in [0, 2^32). */
  word(): number {
    const t = (this.#a + this.#b + this.#counter++) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + t
    return t >>> 0
  }

  /** In [0, 1). */
  uniform(): number {
    return this.word() / 2 ** 32
  }

  /** A whole number in [0, bound). */
  below(bound: number): number {
    return Math.floor(this.uniform() * bound)
  }

  /** Standard normal, by Box and Muller, who give two at a time. */
  normal(): number {
    const spare = this.#spare
    if (spare !== undefined) {
      this.#spare = undefined
      return spare
    }
    const radius = Math.sqrt(-2 * Math.log((this.word() + 1) / 2 ** 32))
    const angle = 2 * Math.PI * this.uniform()
    this.#spare = radius * Math.sin(angle)
    return radius * Math.cos(angle)
  }

  /** `count` numbers of this standard deviation and mean. */
  normals(count: number, deviation = 1, mean = 0): Float32Array {
    const values = new Float32Array(count)
    for (let i = 0; i < count; i++) values[i] = mean + this.normal() * deviation
    return values
  }
}
