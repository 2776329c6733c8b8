import { PAGE_TOKENS } from '@aphrodite/tensor'
import type { GroupTable } from './cache-groups.ts'
import type { BlockNames } from './prefix-cache.ts'
import type { TokenLogprob } from './protocol.ts'
import { type SamplingPlan, seedWords } from './sampling-plan.ts'

/** A request inside the engine: what its answers have in common. */
export class Request {
  readonly id: string
  readonly prompt: Int32Array
  readonly plan: SamplingPlan
  readonly priority: number
  /** Place in the order of arrival. */
  readonly arrival: number
  readonly seed: number
  /** The name before its first block. */
  readonly rootName: string
  /** f32 [promptTokens, vocab], filled as the prompt is computed; undefined unless asked for. */
  readonly logits: Float32Array | undefined
  /** One entry a prompt token as far as the prompt is computed; undefined unless asked for. */
  readonly promptLogprobs: (TokenLogprob | null)[] | undefined
  /** Prompt rows whose logits or log-probabilities are there already: a prompt computed again does not make them again. */
  promptRowsDone = 0
  /** The most tokens of an answer with its prompt: the last of them is drawn and never computed. Infinity where none is drawn. */
  readonly mostTokens: number
  /** The answers that have begun; the others do when the prompt is computed. */
  readonly answers: Sequence[] = []
  /** Answers without a finish reason, begun or not. */
  unfinished: number
  /** Prompt tokens that the first answer found in the prefix cache; -1 before it was looked up. */
  cachedTokens = -1
  /** Aborted or failed: what is still on its way is nobody's. */
  dropped = false
  /** Whether there has been an output: what concerns the prompt goes with the first one. */
  reported = false
  #distinctPrompt: Int32Array | undefined

  constructor(init: {
    id: string
    prompt: Int32Array
    plan: SamplingPlan
    priority: number
    arrival: number
    seed: number
    rootName: string
    logits: Float32Array | undefined
    mostTokens: number
  }) {
    this.id = init.id
    this.prompt = init.prompt
    this.plan = init.plan
    this.priority = init.priority
    this.arrival = init.arrival
    this.seed = init.seed
    this.rootName = init.rootName
    this.logits = init.logits
    this.mostTokens = init.mostTokens
    this.promptLogprobs = init.plan.promptLogprobs >= 0 ? [null] : undefined
    this.unfinished = init.logits ? 1 : init.plan.params.n
  }

  /** The prompt's ids, each once: what a repetition penalty looks at. */
  get distinctPrompt(): Int32Array {
    this.#distinctPrompt ??= Int32Array.from(new Set(this.prompt))
    return this.#distinctPrompt
  }

  /** How many rows of the prompt have to be turned into logits. The last prompt token predicts no prompt token. */
  get promptRows(): number {
    return this.logits ? this.prompt.length : this.promptLogprobs ? this.prompt.length - 1 : 0
  }
  get needsPromptRows(): boolean {
    return this.promptRowsDone < this.promptRows
  }
}

/**
 * One answer: the prompt, what came after it, and how much of both is in the cache. `length` and `computed` say how things stand
 * when everything that is enqueued has been done; the tokens from `known` on have been drawn by then, and are on the device alone.
 */
export class Sequence {
  readonly request: Request
  /** Which of the n answers. */
  readonly index: number
  readonly promptLength: number
  /** Prompt and answer; `length` of them count, and `known` of them are here. */
  tokens: Int32Array
  length: number
  known: number
  /** Tokens whose keys and values are in the cache. */
  computed = 0
  /** Tokens that the next step computes; 0: it rests. */
  scheduled = 0
  /** Full blocks that the prefix cache has been told of. */
  committed = 0
  /** How often it has given its blocks back. What a step says of the blocks of an earlier time is of no use. */
  epoch = 0
  /** One for each cache group. */
  readonly tables: readonly GroupTable[]
  readonly seedLow: number
  readonly seedHigh: number
  finished = false
  /** Whether it has run before: a sequence that comes back after a preemption has. */
  admitted = false
  /** The flat token of the step that it draws after. */
  lastRow = 0
  /** Its place among those that drew in the last step that it drew in. */
  drawnRow = 0
  /** What the step that was collected last drew; -1: nothing. */
  drawn = -1
  drawnLogprob: TokenLogprob | undefined
  readonly #names: string[] = []

  constructor(request: Request, index: number, tables: readonly GroupTable[]) {
    this.request = request
    this.index = index
    this.promptLength = request.prompt.length
    this.tokens = new Int32Array(this.promptLength + 64)
    this.tokens.set(request.prompt)
    this.length = this.promptLength
    this.known = this.promptLength
    this.tables = tables
    const [low, high] = seedWords(request.seed, index)
    this.seedLow = low
    this.seedHigh = high
  }

  get outputLength(): number {
    return this.length - this.promptLength
  }
  /** Whether its last token has been drawn, if not been seen: there is nothing to compute any more. */
  get complete(): boolean {
    return this.length >= this.request.mostTokens
  }
  /** Tokens that are still to be computed: 1 when it decodes. */
  get pending(): number {
    return this.complete ? 0 : this.length - this.computed
  }
  /** Whether the scheduled step reaches the end, so that a token can be drawn. */
  get reachesEnd(): boolean {
    return this.computed + this.scheduled === this.length
  }

  /** Whether the scheduled step gives it a token. */
  get draws(): boolean {
    return this.reachesEnd && !this.request.logits && this.request.plan.params.maxTokens !== 0
  }

  /** The scheduled step is enqueued: from here on it counts as done. */
  advance(): void {
    const draws = this.draws
    this.computed += this.scheduled
    this.scheduled = 0
    if (!draws) return
    if (this.length === this.tokens.length) {
      const larger = new Int32Array(this.tokens.length * 2)
      larger.set(this.tokens)
      this.tokens = larger
    }
    this.tokens[this.length++] = 0
  }

  /** The first token that the host did not know. */
  learn(token: number): void {
    this.tokens[this.known++] = token
  }

  /** The name of full block i, whose tokens are known. */
  blockName(names: BlockNames, i: number): string {
    for (let b = this.#names.length; b <= i; b++)
      this.#names.push(names.next(b === 0 ? this.request.rootName : this.#names[b - 1]!, this.tokens, b * PAGE_TOKENS))
    return this.#names[i]!
  }
}

/** Who goes first: the greater priority, then the earlier arrival, then the lower answer. Negative when a does. */
export const byOrder = (a: Sequence, b: Sequence): number =>
  b.request.priority - a.request.priority || a.request.arrival - b.request.arrival || a.index - b.index
