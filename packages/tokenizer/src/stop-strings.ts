import { tokenizerError } from './errors.ts'

export interface StopOptions {
  /** Whether the stop string stays in the text. Default: false. */
  readonly includeStop?: boolean
}

/** What one `push` settles. */
export interface StopResult {
  /** Text that may be shown. */
  readonly text: string
  /** The stop string that is complete, or null. What came after it is dropped. */
  readonly stop: string | null
}

interface Node {
  readonly next: Map<number, Node>
  fallback: Node
  /** Length of what was matched so far: text that must not be shown yet. */
  readonly depth: number
  /** The longest stop string that ends here. */
  stop: string | null
}

/**
 * Looks for stop strings in text that comes in parts, and holds back what may be the beginning of one. The one that
 * is complete first ends the text, wherever the parts were cut; of several that end at the same place, the longest.
 * An automaton (Aho-Corasick) reads each character once, however many stop strings there are.
 *
 * ```ts
 * const checker = new StopChecker(['\n\n', '###'])
 * checker.push('One#')   // { text: 'One', stop: null }
 * checker.push('##Two')  // { text: '', stop: '###' }
 * ```
 */
export class StopChecker {
  readonly #root: Node
  readonly #include: boolean
  #state: Node
  #held = ''
  #stopped = false

  /** @throws BAD_STOP_STRING one of them is empty */
  constructor(stops: readonly string[], options: StopOptions = {}) {
    this.#root = buildAutomaton(stops)
    this.#state = this.#root
    this.#include = options.includeStop ?? false
  }

  /** Text that is settled with these characters. After a stop nothing is. */
  push(text: string): StopResult {
    if (this.#stopped) return { text: '', stop: null }
    let state = this.#state
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i)
      while (state !== this.#root && !state.next.has(unit)) state = state.fallback
      state = state.next.get(unit) ?? this.#root
      if (state.stop !== null) {
        const whole = this.#held + text.slice(0, i + 1)
        this.#held = ''
        this.#stopped = true
        return { text: this.#include ? whole : whole.slice(0, whole.length - state.stop.length), stop: state.stop }
      }
    }
    this.#state = state
    const whole = this.#held + text
    const settled = whole.length - state.depth
    this.#held = whole.slice(settled)
    return { text: whole.slice(0, settled), stop: null }
  }

  /** Text in which no stop string counts, such as that before `minTokens`: shown with all that was held back. */
  pass(text: string): string {
    if (this.#stopped) return ''
    return this.flush() + text
  }

  /** What was held back, when no text follows. */
  flush(): string {
    const held = this.#held
    this.#held = ''
    this.#state = this.#root
    return held
  }
}

function buildAutomaton(stops: readonly string[]): Node {
  const node = (depth: number, root?: Node): Node => {
    const made = { next: new Map<number, Node>(), depth, stop: null } as unknown as Node
    made.fallback = root ?? made
    return made
  }
  const root = node(0)
  for (const stop of stops) {
    if (typeof stop !== 'string' || stop === '')
      throw tokenizerError(
        'BAD_STOP_STRING',
        `A stop string is ${stop === '' ? 'empty' : `no string but ${typeof stop}`}. Give at least one character, or leave it out.`,
      )
    let at = root
    for (let i = 0; i < stop.length; i++) {
      const unit = stop.charCodeAt(i)
      let next = at.next.get(unit)
      if (!next) {
        next = node(i + 1, root)
        at.next.set(unit, next)
      }
      at = next
    }
    at.stop = stop
  }
  // Breadth first: a node's fallback is the longest proper suffix of its text that is in the tree, so it lies higher.
  const queue = [...root.next.values()]
  for (let i = 0; i < queue.length; i++) {
    const parent = queue[i]!
    for (const [unit, child] of parent.next) {
      let at = parent.fallback
      while (at !== root && !at.next.has(unit)) at = at.fallback
      child.fallback = at.next.get(unit) ?? root
      child.stop ??= child.fallback.stop
      queue.push(child)
    }
  }
  return root
}
