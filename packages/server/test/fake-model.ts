import type {
  CompletionDelta,
  CompletionOutput,
  EngineStats,
  LanguageModel,
  LLMInfo,
  Prompt,
  RequestOptions,
  RequestOutput,
  SamplingParams,
  TokenLogprobs,
} from '@aphrodite/llm'
import { AphroditeError } from '@aphrodite/tensor'

export interface Script {
  /** What answer `index` to a prompt says, one code point a token. */
  answer?: (prompt: string, index: number) => string
  /** Milliseconds before the first token, and between tokens; 0: the next turn of the event loop. */
  firstDelay?: number
  tokenDelay?: number
  /** Throws this in place of token number `failAt`. */
  failAt?: number
  failure?: () => Error
  /** Every token's text repeated so often, to fill sockets. */
  width?: number
  maxModelLen?: number
  cachedTokens?: number
}

/** A language model that says what it is told to. Its tokens are code points below 1,000; 0 is the beginning-of-text token. */
export class FakeModel implements LanguageModel {
  readonly hasTokenizer = true
  readonly hasChatTemplate = true
  readonly info: LLMInfo
  readonly script: Script
  /** What each request asked, in order. */
  readonly asked: { prompt: string; params: Partial<SamplingParams>; options: RequestOptions }[] = []
  running = 0
  finished = 0
  aborted = 0
  /** Deltas handed out. */
  pulled = 0
  dead = false
  hangStats = false

  constructor(script: Script = {}) {
    this.script = script
    this.info = {
      model: 'fake',
      architecture: 'FakeForCausalLM',
      device: 'cpu',
      dtype: 'float32',
      kvCacheDtype: 'f32',
      threads: 1,
      maxModelLen: script.maxModelLen ?? 100_000,
      vocabSize: 1000,
      parameters: 0,
      ledger: { total: 0, weights: 0, workspace: 0, cache: 0, cacheTokens: 0, groups: [] },
    }
  }

  async generate(
    prompts: Prompt | readonly Prompt[],
    params: Partial<SamplingParams> | readonly Partial<SamplingParams>[] = {},
    options: RequestOptions = {},
  ): Promise<RequestOutput[]> {
    const list = Array.isArray(prompts) ? (prompts as readonly Prompt[]) : [prompts as Prompt]
    return Promise.all(
      list.map(async (prompt) => {
        const outputs = new Map<number, { -readonly [K in keyof CompletionOutput]: CompletionOutput[K] }>()
        let first: CompletionDelta | undefined
        for await (const delta of this.stream(prompt, params as Partial<SamplingParams>, options)) {
          first ??= delta
          const { index } = delta
          const output = outputs.get(index) ?? { index, text: '', tokenIds: [], finishReason: 'stop', stopReason: null, logprobs: null }
          outputs.set(index, output)
          output.text += delta.text
          output.tokenIds = [...output.tokenIds, ...delta.tokenIds]
          if (delta.logprobs) output.logprobs = [...(output.logprobs ?? []), ...delta.logprobs]
          if (delta.finishReason) output.finishReason = delta.finishReason
          output.stopReason = delta.stopReason
        }
        return {
          prompt: null,
          promptTokenIds: first?.promptTokenIds ?? [],
          promptLogprobs: first?.promptLogprobs ?? null,
          cachedTokens: first?.cachedTokens ?? 0,
          outputs: [...outputs.values()],
        }
      }),
    )
  }

  async *stream(
    prompt: Prompt,
    params: Partial<SamplingParams> = {},
    options: RequestOptions = {},
  ): AsyncIterableIterator<CompletionDelta> {
    const ids = this.tokenize(prompt)
    const text = this.detokenize(ids, { skipSpecialTokens: true })
    this.asked.push({ prompt: text, params, options })
    this.running++
    let ended = false
    try {
      const { answer = () => 'Hello, world!', firstDelay = 0, tokenDelay = 0, width = 1 } = this.script
      const n = params.n ?? 1
      const none = params.maxTokens === 0
      const answers = Array.from({ length: n }, (_, index) => (none ? [''] : [...answer(text, index)]))
      await this.#pause(firstDelay, options.signal)
      let first = true
      for (let i = 0; answers.some((tokens) => i < tokens.length); i++) {
        if (i > 0) await this.#pause(tokenDelay, options.signal)
        if (this.dead) throw new AphroditeError('ENGINE_DEAD', 'the engine has stopped')
        if (i === this.script.failAt) throw this.script.failure?.() ?? new Error('a path /secret/of/the/server')
        for (const [index, tokens] of answers.entries()) {
          const token = tokens[i]
          if (token === undefined || (!none && i >= (params.maxTokens ?? Number.POSITIVE_INFINITY))) continue
          const id = token.codePointAt(0) ?? 0
          const last = none || i + 1 === params.maxTokens ? 'length' : i + 1 === tokens.length ? 'stop' : null
          this.pulled++
          yield {
            index,
            text: token.repeat(width),
            tokenIds: none ? [] : [id],
            logprobs: params.logprobs == null ? null : none ? [] : [this.#logprobs(id, params.logprobs)],
            finishReason: last,
            stopReason: null,
            ...(first && {
              promptTokenIds: ids,
              promptLogprobs:
                params.promptLogprobs == null
                  ? null
                  : ids.map((one, at) => (at === 0 ? null : this.#logprobs(one, params.promptLogprobs!))),
              cachedTokens: this.script.cachedTokens ?? 0,
            }),
          }
          first = false
        }
      }
      ended = true
    } finally {
      this.running--
      if (ended) this.finished++
      else this.aborted++
    }
  }

  async logits(): Promise<never> {
    throw new AphroditeError('NOT_SUPPORTED', 'the fake has no logits')
  }

  tokenize(prompt: Prompt): readonly number[] {
    let ids: number[]
    if (typeof prompt === 'string') ids = [0, ...points(prompt)]
    else if ('promptTokenIds' in prompt) ids = [...prompt.promptTokenIds]
    else if ('prompt' in prompt) ids = [...((prompt.addSpecialTokens ?? true) ? [0] : []), ...points(prompt.prompt)]
    else {
      const lines = prompt.messages.map((m) => {
        if (m.role === 'tool' && m.tool_call_id === undefined) throw new AphroditeError('BAD_PROMPT', 'a tool message needs tool_call_id')
        return `${m.role}: ${m.content ?? ''}${m.tool_calls ? JSON.stringify(m.tool_calls) : ''}`
      })
      if (prompt.tools) lines.unshift(`tools: ${JSON.stringify(prompt.tools)}`)
      if (prompt.chatTemplateKwargs) lines.unshift(`kwargs: ${JSON.stringify(prompt.chatTemplateKwargs)}`)
      if (prompt.addGenerationPrompt) lines.push('assistant: ')
      ids = [0, ...points(lines.join('\n'))]
    }
    if (ids.length === 0) throw new AphroditeError('BAD_PROMPT', 'the prompt is empty')
    const outside = ids.find((id) => id >= this.info.vocabSize)
    if (outside !== undefined)
      throw new AphroditeError('BAD_PROMPT', `token id ${outside} is outside the vocabulary of ${this.info.vocabSize}`)
    if (ids.length >= this.info.maxModelLen) throw new AphroditeError('PROMPT_TOO_LONG', `the prompt has ${ids.length} tokens`)
    return ids
  }

  detokenize(ids: readonly number[], options: { skipSpecialTokens?: boolean } = {}): string {
    return ids.map((id) => (id === 0 ? (options.skipSpecialTokens ? '' : '<s>') : String.fromCodePoint(id))).join('')
  }

  tokenText(id: number): { token: string; bytes: readonly number[] } {
    const token = id === 0 ? '<s>' : String.fromCodePoint(id)
    return { token, bytes: [...Buffer.from(token)] }
  }

  async stats(): Promise<EngineStats> {
    if (this.dead) throw new AphroditeError('ENGINE_DEAD', 'the engine has stopped')
    if (this.hangStats) await new Promise(() => {})
    return { running: this.running, waiting: 0 } as EngineStats
  }

  async resetPrefixCache(): Promise<void> {}
  async close(): Promise<void> {}

  #logprobs(id: number, k: number): TokenLogprobs {
    const top = Array.from({ length: k }, (_, i) => ({ tokenId: id + i, ...this.tokenText(id + i), logprob: -0.5 * (i + 1) }))
    return { tokenId: id, ...this.tokenText(id), logprob: -0.5, rank: 1, top }
  }

  #pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const gone = () => {
        clearTimeout(timer)
        reject(signal!.reason)
      }
      if (signal?.aborted) return void reject(signal.reason)
      const done = () => {
        signal?.removeEventListener('abort', gone)
        resolve()
      }
      const timer = ms === 0 ? undefined : setTimeout(done, ms)
      if (ms === 0) setImmediate(done)
      signal?.addEventListener('abort', gone, { once: true })
    })
  }
}

const points = (text: string): number[] => [...text].map((c) => c.codePointAt(0)!)
