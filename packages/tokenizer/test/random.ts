/** Seeded random numbers and texts, so that a failure comes back. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** 0 to below n. */
  below(n: number): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0
    return Math.floor((this.#state / 2 ** 32) * n)
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!
  }

  chance(percent: number): boolean {
    return this.below(100) < percent
  }

  /** Up to `length` parts that tokenizers treat differently: scripts, marks, blanks, joined emoji, special tokens. */
  text(length: number): string {
    return Array.from({ length: this.below(length) }, () => this.pick(PARTS)).join('')
  }
}

const PARTS = [
  ...'abcdefgh  THEthe  0123456789.,!?\'"-_()<>|/\\\n\t\r ▁##éèñüßİıſÅΣσςäöŁ中文字日本語カナひら한국어ไทยкт',
  ...[
    '🎉',
    '👍🏽',
    '👨‍👩‍👧',
    '🏳️‍🌈',
    '\u0301',
    '\u00a0',
    '\u0085',
    '\u2028',
    '\ufeff',
    '\u3000',
    'ﬁ',
    '½',
    '²',
    '①',
    '\u0000',
    '\u200d',
    'אָ',
    'क़',
  ],
  ...[
    '<s>',
    '</s>',
    '<unk>',
    '[CLS]',
    '<|bos|>',
    '<|eos|>',
    "'s",
    "'LL",
    "n't",
    ' do not',
    ' the',
    ' and',
    'ing',
    '##s',
    '<0x41>',
    'e\u0301',
    '\r\n',
  ],
]
