import { randomBytes } from 'node:crypto'
import type { CausalLM } from '@aphrodite/layers'
import type { AphroditeError, Arena, Device } from '@aphrodite/tensor'
import type { CacheGroups } from './cache-groups.ts'
import { engineError } from './errors.ts'
import type { ModelRunner } from './model-runner.ts'
import { type EngineOptions, resolveEngineOptions } from './options.ts'
import { PendingStep } from './pending-step.ts'
import { type EngineSizes, overlaps, planMemory, prepareMemory } from './prepare-memory.ts'
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

export type EngineInit = { readonly model: CausalLM; readonly device: Device } & Partial<EngineOptions>

/**
 * What an engine of this model would have on this device: ranks compare it, and each makes its engine with the least of all.
 * Throws BAD_ENGINE_OPTION, CACHE_TOO_SMALL.
 */
export const measureEngine = ({ model, device, ...given }: EngineInit): EngineSizes =>
  planMemory(model, device, resolveEngineOptions(given)).sizes

/**
 * The engine itself: requests in, tokens out, one step at a time. It owns the cache and the workspace, not the device and not
 * the model, which must be materialised and loaded. Not for two callers at once: `inProcessEngine` and `serveEngine` drive it.
 *
 * On a device that works by itself there are two steps under way: one that is computed, and the next one, scheduled and enqueued
 * before the tokens of the first are known. Blocks may be given back and taken again meanwhile: the device does one step after
 * the other, so whoever takes a block writes to it after everybody who had it before.
 *
 * mirror: one of several that are given the same and do the same, the ranks of one model: these are the sizes that all of them
 * have, and a step that fails throws instead of failing its requests.
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
  /** Steps that are enqueued, the oldest first, and how many there may be while one is waited for. */
  readonly #inFlight: PendingStep[] = []
  readonly #depth: number
  readonly #mirrored: boolean
  readonly #spare: PendingStep[] = []
  /** After a step could not be enqueued: what was drawn last may be overwritten on the device, so it has to be known here first. */
  #draining = false
  readonly #aborting: string[] = []
  #events: EngineEvents = { outputs: [], failures: [] }
  #stepping = false
  #closed = false
  #arrivals = 0
  #steps = 0
  #digest = 0
  #promptTokens = 0
  #generatedTokens = 0
  #hitTokens = 0
  #queryTokens = 0

  /** Takes memory for cache and workspace. Throws BAD_ENGINE_OPTION, CACHE_TOO_SMALL, OUT_OF_MEMORY. */
  constructor(init: EngineInit & { readonly mirror?: EngineSizes }) {
    const { model, device, mirror, ...given } = init
    const options = resolveEngineOptions(given)
    this.options = options
    this.vocabSize = model.vocabSize
    const prepared = prepareMemory(model, device, options, planMemory(model, device, options, mirror))
    this.#mirrored = mirror !== undefined
    this.maxModelLen = prepared.maxModelLen
    this.ledger = prepared.ledger
    this.#arena = prepared.arena
    this.#cache = prepared.cache
    this.#runner = prepared.runner
    this.#depth = overlaps(device, options) ? 2 : 1
    this.#scheduler = new Scheduler(this.#cache, options, (sequence, cached) => this.#admitted(sequence, cached))
    this.#limits = {
      vocabSize: model.vocabSize,
      maxModelLen: this.maxModelLen,
      maxAnswers: options.maxAnswers,
      eosTokenIds: options.eosTokenIds,
      seedOf: seeds(options.seed),
      rootName: (salt, promptLength) => this.#cache.names?.root(salt, model.sequenceClass(promptLength)) ?? '',
    }
    try {
      if (options.captureAtStart !== false) this.#runner.captureAtStart(options.captureAtStart)
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** Whether a step would do something, or has something to say. */
  get hasWork(): boolean {
    return (
      this.#scheduler.hasWork ||
      this.#inFlight.length > 0 ||
      this.#aborting.length > 0 ||
      this.#events.outputs.length > 0 ||
      this.#events.failures.length > 0
    )
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
    // While a step is waited for, its sequences stay as they are.
    if (this.#stepping) this.#aborting.push(requestId)
    else this.#abort(requestId)
  }

  /** What all steps that were collected have drawn, in 32 bits: two engines that were given the same have the same. */
  get digest(): number {
    return this.#digest >>> 0
  }

  /**
   * Waits for one step, and says what came of it and of aborts since the last one. Where steps overlap, the next two are enqueued
   * when it returns. Never throws for a request's trouble.
   *
   * intake: called before steps are scheduled, and waited for. Requests and aborts that it brings count for them. It is called as
   * often, and after as many steps, in every engine that was given the same.
   */
  async step(intake?: () => void | Promise<void>): Promise<EngineEvents> {
    if (this.#closed) throw engineError('ENGINE_CLOSED', 'the engine is closed')
    if (intake && this.#inFlight.length < this.#depth) await intake()
    this.#stepping = true
    try {
      this.#fill(true)
      const oldest = this.#inFlight[0]
      if (oldest) await this.#collect(oldest)
    } finally {
      this.#stepping = false
    }
    for (const id of this.#aborting.splice(0)) this.#abort(id)
    // Before anybody reads the tokens: the device is to have something to do meanwhile.
    if (this.#depth > 1) {
      if (intake) await intake()
      this.#fill(false)
    }
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

  /** Gives the cache and the workspace back. Not while `step` runs; what is enqueued is waited for. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    if (this.#inFlight.splice(0).length > 0) this.#runner.finish()
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

  /** Enqueues steps until there are enough. need: there is nobody else to make the engine get on. */
  #fill(need: boolean): void {
    while (this.#inFlight.length < this.#depth) {
      if (this.#draining && this.#inFlight.length > 0) return
      this.#draining = false
      const step = this.#spare.pop() ?? new PendingStep()
      let scheduled = false
      try {
        this.#scheduler.schedule(step.batch)
        scheduled = true
        if (step.batch.length > 0) this.#runner.launch(step)
        else if (need && this.#inFlight.length === 0 && this.#scheduler.hasWork) throw new Error('the scheduler found nothing to do')
      } catch (error) {
        this.#draining = true
        // If it was the scheduler that broke, nothing that stands in it can be trusted to get on.
        const { running, waiting } = this.#scheduler
        this.#failAll(scheduled && step.batch.length > 0 ? step.batch : [...running, ...waiting], error)
        return
      }
      if (step.batch.length === 0) {
        this.#spare.push(step)
        return
      }
      this.#inFlight.push(step)
    }
  }

  /** Waits for the oldest step, and takes in what came of it. */
  async #collect(step: PendingStep): Promise<void> {
    try {
      await this.#runner.collect(step)
    } catch (error) {
      await this.#failInFlight(error)
      return
    }
    this.#inFlight.shift()
    const { batch } = step
    try {
      for (let i = 0; i < batch.length; i++) this.#advance(step, i)
      this.#steps++
      this.#digest = mix(this.#digest, batch.length)
    } catch (error) {
      this.#failAll(batch, error)
    }
    this.#spare.push(step)
  }

  /** Takes in what a step has computed of one sequence. */
  #advance(step: PendingStep, i: number): void {
    const sequence = step.batch[i]!
    const { request } = sequence
    // Its end was known only when this step was enqueued already: what it drew is one too many.
    if (sequence.finished || request.dropped) return
    if (sequence.epoch === step.epochs[i]) this.#cache.commit(sequence, step.computed[i]!)
    if (!step.reachedEnd[i]) return
    if (sequence.known === sequence.promptLength) {
      if (sequence.index === 0) this.#promptTokens += sequence.promptLength
      // The prompt is in the cache now: the other answers start from there.
      if (request.answers.length === 1) for (let i = 1; i < request.unfinished; i++) this.#begin(request, i)
    }
    if (request.mostTokens < Number.POSITIVE_INFINITY) this.#take(sequence)
    else this.#finish(sequence, 'length', [])
  }

  /** Adds the token that was drawn, and looks whether it is the last. */
  #take(sequence: Sequence): void {
    const { request } = sequence
    const { params, eosIds, stopIds } = request.plan

    const token = sequence.drawn
    this.#digest = mix(this.#digest, token)
    if (!(token >= 0 && token < this.vocabSize)) {
      const why = `no token could be drawn for request "${request.id}": its logits are not numbers. Are the weights right for this dtype?`
      this.#fail(request, engineError('STEP_FAILED', why))
      return
    }
    sequence.learn(token)
    this.#generatedTokens++
    const enough = sequence.known - sequence.promptLength >= params.minTokens
    if (enough && eosIds.has(token)) this.#finish(sequence, 'stop', [token])
    else if (enough && stopIds.has(token)) this.#finish(sequence, 'stop', [token], token)
    else if (sequence.known === request.mostTokens) this.#finish(sequence, 'length', [token])
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
    if (request.reported && finishReason === null && !sequence.drawnLogprob) {
      // One for each sequence and step: most outputs by far.
      this.#events.outputs.push({ requestId: request.id, index: sequence.index, tokenIds, finishReason })
      return
    }
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
    request.dropped = true
    for (const sequence of request.answers) if (!sequence.finished) this.#scheduler.remove(sequence)
    this.#requests.delete(request.id)
  }

  /** A device that broke in one step did not do the ones behind it either. */
  async #failInFlight(error: unknown): Promise<void> {
    for (const [i, step] of this.#inFlight.entries()) {
      if (i > 0) await this.#runner.collect(step).catch(() => {})
      this.#failAll(step.batch, error)
    }
    this.#inFlight.length = 0
  }

  /**
   * A step that broke takes its own requests with it and nobody else's. What it wrote was not published to the prefix cache. A
   * mirrored engine ends: nobody knows how far the others got.
   */
  #failAll(sequences: readonly Sequence[], error: unknown): void {
    if (this.#mirrored) throw error
    const cause = error instanceof Error ? error.message : String(error)
    for (const { request } of [...sequences])
      this.#fail(request, engineError('STEP_FAILED', `a step with request "${request.id}" in it failed: ${cause}`, { cause: error }))
  }
}

/** FNV-1a, over numbers. */
const mix = (digest: number, value: number): number => Math.imul((digest ^ value) + 0x811c9dc5, 0x01000193)

/** Seeds for requests that bring none: random, or from a seed of the engine's and the order of arrival. */
function seeds(seed: number | null): (arrival: number) => number {
  if (seed === null) return () => randomBytes(6).readUIntLE(0, 6)
  return (arrival) => derivedSeed(seed, arrival)
}
