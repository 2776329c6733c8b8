import { randomBytes } from 'node:crypto'
import type { CausalLM } from '@aphrodite/layers'
import type { AphroditeError, Arena, Device } from '@aphrodite/tensor'
import type { CacheGroups } from './cache-groups.ts'
import { engineError } from './errors.ts'
import type { ModelRunner } from './model-runner.ts'
import { type EngineOptions, resolveEngineOptions } from './options.ts'
import { prepareMemory } from './prepare-memory.ts'
import type { EngineFailure, EngineOutput, EngineRequest, EngineStats, FinishReason, MemoryLedger } from './protocol.ts'
import { type RequestLimits, readRequest } from './read-request.ts'
import { derivedSeed } from './sampling-plan.ts'
import { Scheduler } from './scheduler.ts'
import { type Request, Sequence } from './sequence.ts'

/** What a step, or an abort, has to say. */
export interface EngineEvents {
  readonly outputs: EngineOutput[]
  readonly failures: EngineFailure[]
}

/**
 * The engine itself: requests in, tokens out, one step at a time. It owns the cache and the workspace, not the device and not
 * the model, which must be materialised and loaded. Not for two callers at once: `inProcessEngine` and `serveEngine` drive it.
 */
export class EngineCore {
  readonly options: EngineOptions
  readonly ledger: MemoryLedger
  /** The most tokens of a sequence, prompt and answer. */
  readonly maxModelLen: number
  readonly vocabSize: number
  readonly #limits: RequestLimits
  readonly #arena: Arena
  readonly #cache: CacheGroups
  readonly #runner: ModelRunner
  readonly #scheduler: Scheduler
  readonly #requests = new Map<string, Request>()
  readonly #batch: Sequence[] = []
  readonly #aborting: string[] = []
  #events: EngineEvents = { outputs: [], failures: [] }
  #stepping = false
  #closed = false
  #arrivals = 0
  #steps = 0
  #promptTokens = 0
  #generatedTokens = 0
  #hitTokens = 0
  #queryTokens = 0

  /** Takes memory for cache and workspace. Throws BAD_ENGINE_OPTION, CACHE_TOO_SMALL, OUT_OF_MEMORY. */
  constructor(init: { readonly model: CausalLM; readonly device: Device } & Partial<EngineOptions>) {
    const { model, device, ...given } = init
    const options = resolveEngineOptions(given)
    this.options = options
    this.vocabSize = model.vocabSize
    const prepared = prepareMemory(model, device, options)
    this.maxModelLen = prepared.maxModelLen
    this.ledger = prepared.ledger
    this.#arena = prepared.arena
    this.#cache = prepared.cache
    this.#runner = prepared.runner
    this.#scheduler = new Scheduler(this.#cache, options, (sequence, cached) => this.#admitted(sequence, cached))
    this.#limits = {
      vocabSize: model.vocabSize,
      maxModelLen: this.maxModelLen,
      maxAnswers: options.maxAnswers,
      eosTokenIds: options.eosTokenIds,
      seedOf: seeds(options.seed),
      rootName: (salt, promptLength) => this.#cache.names?.root(salt, model.sequenceClass(promptLength)) ?? '',
    }
  }

  /** Whether a step would do something, or has something to say. */
  get hasWork(): boolean {
    return this.#scheduler.hasWork || this.#aborting.length > 0 || this.#events.outputs.length > 0 || this.#events.failures.length > 0
  }

  /** Takes a request in. Throws BAD_REQUEST, BAD_SAMPLING_PARAMS or SEQUENCE_TOO_LONG, and has not taken it then. */
  add(request: EngineRequest): void {
    if (this.#closed) throw engineError('ENGINE_CLOSED', 'the engine is closed')
    if (this.#requests.has(request?.id))
      throw engineError('BAD_REQUEST', `there is a request "${request.id}" already. Ids must be unique while a request runs.`)
    const read = readRequest(request, this.#arrivals, this.#limits)
    this.#arrivals++
    this.#requests.set(read.id, read)
    this.#begin(read, 0)
  }

  /** Ends a request: its answers without a finish reason get `abort`, with the next events. Unknown ids are ignored. */
  abort(requestId: string): void {
    // While the device computes, the blocks of the step are not free.
    if (this.#stepping) this.#aborting.push(requestId)
    else this.#abort(requestId)
  }

  /** Computes one step, and says what came of it and of aborts since the last one. Never throws for a request's trouble. */
  async step(): Promise<EngineEvents> {
    if (this.#closed) throw engineError('ENGINE_CLOSED', 'the engine is closed')
    const batch = this.#batch
    this.#stepping = true
    try {
      this.#scheduler.schedule(batch)
      if (batch.length > 0) await this.#runner.run(batch)
      else if (this.#scheduler.hasWork) throw new Error('the scheduler found nothing to do')
      for (const sequence of batch) this.#advance(sequence)
      this.#steps++
    } catch (error) {
      this.#failBatch(error)
    } finally {
      this.#stepping = false
    }
    for (const id of this.#aborting.splice(0)) this.#abort(id)
    const events = this.#events
    this.#events = { outputs: [], failures: [] }
    return events
  }

  stats(): EngineStats {
    return {
      running: this.#scheduler.running.length,
      waiting: this.#scheduler.waiting.length,
      cacheBlocks: this.#cache.blocks,
      cacheBlocksUsed: this.#cache.blocksUsed,
      prefixHitTokens: this.#hitTokens,
      prefixQueryTokens: this.#queryTokens,
      preemptions: this.#scheduler.preemptions,
      promptTokens: this.#promptTokens,
      generatedTokens: this.#generatedTokens,
      steps: this.#steps,
    }
  }

  /** Gives the blocks of everything that runs back; it is computed again, to the same tokens. Not while a step runs. */
  preemptAll(): void {
    this.#scheduler.preemptAll()
  }

  /** Drops every cached prefix that nobody uses. */
  resetPrefixCache(): void {
    this.#cache.reset()
  }

  /** Throws UNBALANCED unless every block is free. To be called when there is no work. */
  assertBalanced(): void {
    if (this.#requests.size > 0) throw engineError('UNBALANCED', `${this.#requests.size} requests are still there`)
    this.#cache.assertBalanced()
  }

  /** Gives the cache and the workspace back. Not while a step runs. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#runner.release()
    this.#arena.release()
  }

  #begin(request: Request, index: number): void {
    const sequence = new Sequence(request, index, this.#cache.open())
    request.answers.push(sequence)
    this.#scheduler.add(sequence)
  }

  #admitted(sequence: Sequence, cached: number): void {
    const { request } = sequence
    if (request.cachedTokens === -1) request.cachedTokens = cached
    if (sequence.admitted || !this.#cache.names) return
    sequence.admitted = true
    this.#queryTokens += sequence.length
    this.#hitTokens += cached
  }

  /** Takes in what a step has computed of one sequence. */
  #advance(sequence: Sequence): void {
    const { request } = sequence
    const draws = sequence.draws
    const ends = sequence.reachesEnd
    sequence.computed += sequence.scheduled
    sequence.scheduled = 0
    this.#cache.commit(sequence)
    if (!ends) return
    if (sequence.outputLength === 0) {
      if (sequence.index === 0) this.#promptTokens += sequence.promptLength
      // The prompt is in the cache now: the other answers start from there.
      if (request.answers.length === 1) for (let i = 1; i < request.unfinished; i++) this.#begin(request, i)
    }
    if (draws) this.#take(sequence)
    else this.#finish(sequence, 'length', [])
  }

  /** Adds the token that was drawn, and looks whether it is the last. */
  #take(sequence: Sequence): void {
    const { request } = sequence
    const { params, eosIds, stopIds } = request.plan

    const token = sequence.drawn
    if (!(token >= 0 && token < this.vocabSize)) {
      const why = `no token could be drawn for request "${request.id}": its logits are not numbers. Are the weights right for this dtype?`
      this.#fail(request, engineError('STEP_FAILED', why))
      return
    }
    sequence.append(token)
    this.#generatedTokens++
    const enough = sequence.outputLength >= params.minTokens
    if (enough && eosIds.has(token)) this.#finish(sequence, 'stop', [token])
    else if (enough && stopIds.has(token)) this.#finish(sequence, 'stop', [token], token)
    else if (sequence.outputLength === params.maxTokens || sequence.length === this.maxModelLen) this.#finish(sequence, 'length', [token])
    else this.#emit(sequence, [token], null)
  }

  #finish(sequence: Sequence, reason: FinishReason, tokenIds: number[], stopReason: number | null = null): void {
    const { request } = sequence
    sequence.finished = true
    this.#scheduler.remove(sequence)
    this.#emit(sequence, tokenIds, reason, stopReason)
    request.unfinished--
    if (request.unfinished === 0) this.#requests.delete(request.id)
  }

  #emit(sequence: Sequence, tokenIds: number[], finishReason: FinishReason | null, stopReason?: number | null): void {
    const { request } = sequence
    const first = !request.reported
    request.reported = true
    this.#events.outputs.push({
      requestId: request.id,
      index: sequence.index,
      tokenIds,
      finishReason,
      ...(sequence.drawnLogprob && tokenIds.length > 0 ? { logprobs: [sequence.drawnLogprob] } : {}),
      ...(finishReason ? { stopReason: stopReason ?? null } : {}),
      ...(first ? { cachedTokens: Math.max(0, request.cachedTokens) } : {}),
      ...(first && request.promptLogprobs ? { promptLogprobs: request.promptLogprobs } : {}),
      ...(first && request.logits ? { logits: request.logits } : {}),
    })
  }

  #abort(requestId: string): void {
    const request = this.#requests.get(requestId)
    if (!request) return
    this.#drop(request)
    const { outputs } = this.#events
    for (let index = 0; index < (request.logits ? 1 : request.plan.params.n); index++)
      if (!request.answers[index]?.finished) outputs.push({ requestId, index, tokenIds: [], finishReason: 'abort', stopReason: null })
  }

  #fail(request: Request, error: AphroditeError): void {
    if (!this.#requests.has(request.id)) return
    this.#drop(request)
    this.#events.failures.push({ requestId: request.id, code: error.code, message: error.message })
  }

  #drop(request: Request): void {
    for (const sequence of request.answers) if (!sequence.finished) this.#scheduler.remove(sequence)
    this.#requests.delete(request.id)
  }

  /** A step that broke takes its own requests with it and nobody else's. What it wrote was not published to the prefix cache. */
  #failBatch(error: unknown): void {
    const cause = error instanceof Error ? error.message : String(error)
    // Without a batch it was the scheduler that broke: then nothing that stands in it can be trusted to get on.
    const { running, waiting } = this.#scheduler
    const broken = this.#batch.length > 0 ? this.#batch : [...running, ...waiting]
    for (const { request } of [...broken])
      this.#fail(request, engineError('STEP_FAILED', `a step with request "${request.id}" in it failed: ${cause}`, { cause: error }))
  }
}

/** Seeds for requests that bring none: random, or from a seed of the engine's and the order of arrival. */
function seeds(seed: number | null): (arrival: number) => number {
  if (seed === null) return () => randomBytes(6).readUIntLE(0, 6)
  return (arrival) => derivedSeed(seed, arrival)
}
