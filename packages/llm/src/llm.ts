import { randomUUID } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import { type EngineRequest, type EngineStats, resolveSamplingParams, type SamplingParams } from '@aphrodite/engine'
import { readConfig } from '@aphrodite/loader'
import { endOfRegistering } from '@aphrodite/models'
import type { ChatTemplate, Tokenizer } from '@aphrodite/tokenizer'
import { AnswerText, describeLogprob } from './answer-text.ts'
import { type StartedEngine, startEngineHere, startEngineRanks, startEngineThread } from './engine-start.ts'
import { llmError } from './errors.ts'
import { findModel } from './find-model.ts'
import { resolveOptions } from './options.ts'
import { type EncodedPrompt, encodePrompt, type PromptContext } from './prompts.ts'
import { collectRegistrations, isTiedToThisThread } from './registrations.ts'
import { openTokenizer } from './text.ts'
import type {
  CompletionDelta,
  CompletionOutput,
  DeviceLimits,
  LanguageModel,
  LLMInfo,
  LLMOptions,
  Prompt,
  RequestOptions,
  RequestOutput,
  TokenLogprobs,
} from './types.ts'

/** A model on this machine, with its tokenizer and its engine. */
export class LLM implements LanguageModel {
  readonly info: LLMInfo
  readonly #engine: StartedEngine
  readonly #tokenizer: Tokenizer | null
  readonly #chatTemplate: ChatTemplate | null
  #closing: Promise<void> | undefined

  private constructor(engine: StartedEngine, tokenizer: Tokenizer | null, chatTemplate: ChatTemplate | null) {
    this.#engine = engine
    this.info = engine.info
    this.#tokenizer = tokenizer
    this.#chatTemplate = chatTemplate
  }

  /** Finds (or downloads), loads and starts a model. Throws an AphroditeError that says what is wrong with options, files or device. */
  static async create(options: LLMOptions): Promise<LLM> {
    await endOfRegistering()
    const resolved = resolveOptions(options)
    const { onProgress = () => {}, rank, ...plain } = resolved
    if (rank && rank.rank !== 0)
      throw llmError('BAD_OPTION', `this process is rank ${rank.rank}: only rank 0 has a model to ask. Call followRank here.`)
    const folder = await findModel(resolved.model, resolved)
    const text = resolved.skipTokenizerInit
      ? undefined
      : resolved.tokenizer === undefined
        ? folder
        : await findModel(resolved.tokenizer, resolved, false)
    const { architectures } = readConfig(folder)
    const registrations = collectRegistrations(resolved.plugins)
    // The tokenizer is read here while the weights are read there.
    const setup = { folder, options: plain, registrations }
    const ranked = plain.tensorParallelSize > 1
    const here = isTiedToThisThread(architectures, registrations, ranked)
    const starting = ranked
      ? startEngineRanks(setup, rank, onProgress)
      : here
        ? startEngineHere(setup, onProgress)
        : startEngineThread(setup, onProgress)
    starting.catch(() => {}) // it is awaited below, but may fail before
    try {
      const { tokenizer, chatTemplate } =
        text === undefined ? { tokenizer: null, chatTemplate: null } : await openTokenizer(text, resolved.chatTemplate)
      const engine = await starting
      const brought = engine.info.chatTemplate
      const template = chatTemplate ?? (tokenizer && brought !== null ? tokenizer.chatTemplate(brought) : null)
      return new LLM(engine, tokenizer, template)
    } catch (error) {
      await starting.then(
        (engine) => engine.close(),
        () => {},
      )
      throw error
    }
  }

  get hasTokenizer(): boolean {
    return this.#tokenizer !== null
  }
  get hasChatTemplate(): boolean {
    return this.#chatTemplate !== null
  }

  /** One entry a prompt, in order. Prompts are computed together. The first that fails ends the others. */
  async generate(
    prompts: Prompt | readonly Prompt[],
    params: Partial<SamplingParams> | readonly Partial<SamplingParams>[] = {},
    options: RequestOptions = {},
  ): Promise<RequestOutput[]> {
    const list = (Array.isArray(prompts) ? prompts : [prompts]) as readonly Prompt[]
    const each = Array.isArray(params) ? (params as readonly Partial<SamplingParams>[]) : list.map(() => params as Partial<SamplingParams>)
    if (each.length !== list.length)
      throw llmError(
        'BAD_PROMPT',
        `generate was given ${list.length} prompts and ${each.length} sampling params: give one for each, or one for all`,
      )
    // All are checked before any is started.
    const requests = list.map((prompt, i) => this.#prepare(prompt, each[i]!))
    const failed = new AbortController()
    const signal = options.signal ? AbortSignal.any([options.signal, failed.signal]) : failed.signal
    setMaxListeners(0, signal) // one a request
    try {
      return await Promise.all(requests.map((request) => this.#collect(request, { ...options, signal })))
    } catch (error) {
      failed.abort(error)
      throw error
    }
  }

  /** What comes, as it comes, of all n answers. Leaving the loop aborts. */
  stream(prompt: Prompt, params: Partial<SamplingParams> = {}, options: RequestOptions = {}): AsyncIterableIterator<CompletionDelta> {
    return this.#run(this.#prepare(prompt, params), options)
  }

  /** Logits of every prompt position. */
  async logits(promptTokenIds: readonly number[]): Promise<{ shape: readonly [number, number]; data: Float32Array }> {
    const { ids } = encodePrompt({ promptTokenIds }, this.#promptContext(0))
    const request: EngineRequest = {
      id: randomUUID(),
      promptTokenIds: ids,
      params: resolveSamplingParams({ maxTokens: 1 }, { vocabSize: this.info.vocabSize }),
      returnLogits: true,
    }
    for await (const { logits } of this.#engine.client.submit(request)) {
      if (logits) return { shape: [ids.length, this.info.vocabSize], data: logits }
    }
    throw llmError('ENGINE_DEAD', 'the engine ended the request without logits')
  }

  tokenize(prompt: Prompt): readonly number[] {
    return encodePrompt(prompt, this.#promptContext(0)).ids
  }

  detokenize(ids: readonly number[], { skipSpecialTokens = false } = {}): string {
    if (!this.#tokenizer) throw llmError('NO_TOKENIZER', 'this model was started without a tokenizer')
    return this.#tokenizer.decode(ids, { skipSpecialTokens })
  }

  tokenText(id: number): { token: string; bytes: readonly number[] } {
    if (!this.#tokenizer) throw llmError('NO_TOKENIZER', 'this model was started without a tokenizer')
    return this.#tokenizer.tokenText(id)
  }

  stats(): Promise<EngineStats> {
    return this.#engine.client.stats()
  }
  resetPrefixCache(): Promise<void> {
    return this.#engine.client.resetPrefixCache()
  }
  /** Measures, between steps, how fast the device reads the weights' memory and multiplies. */
  measureLimits(): Promise<DeviceLimits> {
    return this.#engine.measureLimits()
  }

  /** Ends running requests, frees memory and threads. */
  close(): Promise<void> {
    this.#closing ??= this.#engine.close()
    return this.#closing
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #promptContext(room: 0 | 1): PromptContext {
    const { vocabSize, maxModelLen } = this.info
    return { tokenizer: this.#tokenizer, chatTemplate: this.#chatTemplate, vocabSize, maxModelLen, room }
  }

  #prepare(prompt: Prompt, given: Partial<SamplingParams>): PreparedRequest {
    const params = resolveSamplingParams(given, { vocabSize: this.info.vocabSize })
    if (params.stop.length && !this.#tokenizer)
      throw llmError('NO_TOKENIZER', 'stop strings need a tokenizer, and this model was started without one: give stopTokenIds')
    return { prompt: encodePrompt(prompt, this.#promptContext(1)), params }
  }

  async *#run(
    { prompt, params }: PreparedRequest,
    { signal, cacheSalt, priority }: RequestOptions,
  ): AsyncGenerator<CompletionDelta, void, undefined> {
    signal?.throwIfAborted()
    const id = randomUUID()
    const answers = Array.from({ length: params.n }, () => new AnswerText(this.#tokenizer, params))
    const outputs = this.#engine.client.submit({
      id,
      promptTokenIds: prompt.ids,
      params,
      ...(cacheSalt !== undefined && { cacheSalt }),
      ...(priority !== undefined && { priority }),
    })
    const abort = () => this.#engine.client.abort(id)
    signal?.addEventListener('abort', abort, { once: true })
    try {
      let first = true
      for await (const output of outputs) {
        signal?.throwIfAborted()
        const answer = answers[output.index]!
        if (answer.finished) continue
        const delta = answer.push(output)
        if (first) {
          const promptLogprobs = output.promptLogprobs?.map((l) => l && describeLogprob(l, this.#tokenizer)) ?? null
          yield { ...delta, promptTokenIds: prompt.ids, promptLogprobs, cachedTokens: output.cachedTokens ?? 0 }
          first = false
        } else if (delta.text !== '' || delta.tokenIds.length || delta.finishReason !== null) yield delta
        if (answers.every((a) => a.finished)) return
      }
    } finally {
      signal?.removeEventListener('abort', abort)
    }
  }

  async #collect(request: PreparedRequest, options: RequestOptions): Promise<RequestOutput> {
    const outputs = Array.from({ length: request.params.n }, (_, index) => ({
      index,
      text: '',
      tokenIds: [] as number[],
      logprobs: [] as TokenLogprobs[],
      finishReason: null as CompletionOutput['finishReason'] | null,
      stopReason: null as string | number | null,
    }))
    let promptLogprobs: RequestOutput['promptLogprobs'] = null
    let cachedTokens = 0
    for await (const delta of this.#run(request, options)) {
      const output = outputs[delta.index]!
      output.text += delta.text
      output.tokenIds.push(...delta.tokenIds)
      if (delta.logprobs) output.logprobs.push(...delta.logprobs)
      output.finishReason = delta.finishReason
      output.stopReason = delta.stopReason
      promptLogprobs = delta.promptLogprobs ?? promptLogprobs
      cachedTokens = delta.cachedTokens ?? cachedTokens
    }
    const withLogprobs = request.params.logprobs !== null
    return {
      prompt: request.prompt.text,
      promptTokenIds: request.prompt.ids,
      promptLogprobs,
      cachedTokens,
      outputs: outputs.map((o) => ({ ...o, finishReason: o.finishReason ?? 'abort', logprobs: withLogprobs ? o.logprobs : null })),
    }
  }
}

interface PreparedRequest {
  readonly prompt: EncodedPrompt
  readonly params: SamplingParams
}
