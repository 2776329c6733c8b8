// Seeded damage to files, of the kinds that disks, downloads and malice do.
import { random } from './writer.ts'

/** Numbers at which readers break. */
const NUMBERS = [
  '-1',
  '-0',
  '0',
  '1',
  '00',
  '1.0',
  '1e3',
  '1e999',
  '0.5',
  '4294967296',
  '9007199254740991',
  '9007199254740992',
  '18446744073709551615',
  '99999999999999999999999999',
  '1152921504606846976',
  'NaN',
  'Infinity',
  '-Infinity',
  'null',
  'true',
  '"1"',
  '[]',
  '{}',
  '',
]
const PIECES = [
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '"',
  '\\',
  '\\u',
  '\\ud800',
  '\\"',
  ' ',
  '\n',
  '\t',
  '\0',
  '/',
  '//',
  '"a":',
  '"a":1,',
  '[[[[',
  '{"a":',
  '__metadata__',
  '__proto__',
  'é',
  '\ufeff',
  '𝄞',
  '"dtype":"F32",',
  '"shape":[2],',
  '"data_offsets":[0,8],',
]

export class Mutator {
  readonly #next: () => number
  constructor(seed: number) {
    this.#next = random(seed)
  }

  /** A whole number in [0, n). */
  below(n: number): number {
    return Math.floor(this.#next() * n)
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!
  }

  /** One change to a text. */
  text(text: string): string {
    const at = this.below(text.length + 1)
    const to = Math.min(text.length, at + this.below(24))
    switch (this.below(8)) {
      case 0: // another number
      case 1: {
        const numbers = [...text.matchAll(/-?\d+(\.\d+)?/g)]
        if (numbers.length === 0) return text
        const { 0: old, index } = this.pick(numbers)
        return text.slice(0, index) + this.pick([...NUMBERS, String(this.below(1000)), `${old}0`]) + text.slice(index + old.length)
      }
      case 2: // a piece put in
        return text.slice(0, at) + this.pick(PIECES).repeat(1 + this.below(3)) + text.slice(at)
      case 3: // a stretch taken out
        return text.slice(0, at) + text.slice(to)
      case 4: // a stretch twice, or elsewhere
        return text.slice(0, this.below(text.length + 1)) + text.slice(at, to) + text.slice(this.below(text.length + 1))
      case 5: // cut off
        return text.slice(0, at)
      case 6: // one character is another
        return text.slice(0, at) + String.fromCharCode(this.below(0x180)) + text.slice(at + 1)
      default: // two stretches change places
        return text.slice(0, at) + text.slice(to) + text.slice(at, to)
    }
  }

  /** One change to bytes. */
  bytes(bytes: Uint8Array): Uint8Array {
    const copy = bytes.slice()
    if (copy.length === 0) return copy
    switch (this.below(5)) {
      case 0:
        copy[this.below(copy.length)]! ^= 1 << this.below(8)
        return copy
      case 1:
        return copy.subarray(0, this.below(copy.length))
      case 2:
        copy[this.below(Math.min(copy.length, 16))] = this.below(256)
        return copy
      case 3:
        return Buffer.concat([copy, Buffer.alloc(1 + this.below(40), this.below(256))])
      default: {
        const at = this.below(copy.length)
        copy.copyWithin(at, this.below(copy.length), this.below(copy.length))
        return copy
      }
    }
  }
}
