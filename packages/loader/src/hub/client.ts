import { setTimeout as delay } from 'node:timers/promises'
import { AphroditeError } from '@aphrodite/tensor'
import { loaderError } from '../errors.ts'
import type { HubSettings } from './settings.ts'

/** A file of a repository as the hub lists it. */
export interface RepoFile {
  readonly path: string
  readonly size: number
  /** 64 digits: the SHA-256 of the content; 40: its git hash. It names the blob in the cache. */
  readonly etag: string
}

const HURRY_MS = 5_000
/** Whether there is a network at all should not take long to find out. */
const FIRST_ATTEMPTS = 3

/** Talks to the hub: repeats what fails for a moment, and turns what fails for good into errors that say what to do. */
export class HubClient {
  readonly id: string
  readonly #settings: HubSettings
  readonly #origin: string

  constructor(id: string, settings: HubSettings) {
    this.id = id
    this.#settings = settings
    this.#origin = new URL(settings.endpoint).origin
  }

  /** The commit that the revision is at now. `hurry`: asked once and not for long, where the answer can be done without. */
  async commit(hurry: boolean): Promise<string> {
    const { modelInfo } = await import('@huggingface/hub')
    const { endpoint, revision } = this.#settings
    const info = await this.#answer(
      modelInfo({
        name: this.id,
        revision,
        hubUrl: endpoint,
        additionalFields: ['sha'],
        fetch: this.#fetch(hurry ? 1 : FIRST_ATTEMPTS, hurry ? HURRY_MS : undefined),
      }),
    )
    if (typeof info.sha !== 'string' || !/^[0-9a-f]{40}$/.test(info.sha)) throw this.#nonsense()
    return info.sha
  }

  async files(commit: string): Promise<RepoFile[]> {
    const { listFiles } = await import('@huggingface/hub')
    const { endpoint } = this.#settings
    const list = listFiles({
      repo: { type: 'model', name: this.id },
      recursive: true,
      revision: commit,
      hubUrl: endpoint,
      fetch: this.#fetch(),
    })
    const files: RepoFile[] = []
    const take = async (): Promise<void> => {
      for await (const { type, path, size, oid, lfs } of list) {
        if (type !== 'file') continue
        const file = { path, size: lfs?.size ?? size, etag: lfs?.oid ?? oid ?? '' }
        if (typeof path !== 'string' || !Number.isSafeInteger(file.size) || file.size < 0) throw this.#nonsense()
        files.push(file)
      }
    }
    await this.#answer(take())
    return files
  }

  /** A file's bytes from `start` on. The answer may be 200 (all of it), 206 or 416. */
  download(commit: string, path: string, start: number, signal: AbortSignal | undefined): Promise<Response> {
    const url = `${this.#settings.endpoint}/${this.id}/resolve/${commit}/${path.split('/').map(encodeURIComponent).join('/')}`
    const headers = { 'accept-encoding': 'identity', ...(start > 0 ? { range: `bytes=${start}-` } : {}) }
    return this.#request(url, { headers, ...(signal ? { signal } : {}) }, path)
  }

  /** For functions of @huggingface/hub: fetch, with everything that this class adds. Answers are whole when it returns. */
  #fetch(mostAttempts = Number.POSITIVE_INFINITY, longestMs = Number.POSITIVE_INFINITY): typeof fetch {
    const { signal } = this.#settings
    const attempts = Math.min(mostAttempts, this.#settings.attempts)
    const timeoutMs = Math.min(longestMs, this.#settings.timeoutMs)
    return (input, init) => {
      const url = input instanceof Request ? input.url : String(input)
      return this.#repeat(attempts, async () => {
        const response = await this.#request(url, { ...init, signal: anySignal(AbortSignal.timeout(timeoutMs), signal) })
        return new Response(await response.arrayBuffer(), { status: response.status, headers: response.headers })
      })
    }
  }

  async #request(url: string, init: RequestInit, path?: string): Promise<Response> {
    const headers = new Headers(init.headers)
    // A listing may go on at another host, which the token is not for; fetch itself drops it on redirects.
    if (this.#settings.token && new URL(url).origin === this.#origin) headers.set('authorization', `Bearer ${this.#settings.token}`)
    const response = await fetch(url, { ...init, headers })
    if (response.ok || response.status === 416) return response
    await response.body?.cancel()
    throw this.#refused(response, path)
  }

  async #repeat<T>(attempts: number, once: () => Promise<T>): Promise<T> {
    for (let failed = 1; ; failed++) {
      try {
        return await once()
      } catch (error) {
        if (!this.mayPass(error)) throw error
        if (failed >= attempts) throw this.unreachable(error)
        await this.pause(failed)
      }
    }
  }

  /** Whether an error may be gone in a moment. */
  mayPass(error: unknown): boolean {
    this.#settings.signal?.throwIfAborted()
    return error instanceof Passing || !(error instanceof AphroditeError)
  }

  /** Waits before repetition number `failed`. */
  async pause(failed: number): Promise<void> {
    const { retryDelayMs, signal } = this.#settings
    await delay(retryDelayMs * 2 ** (failed - 1), undefined, signal ? { signal } : {})
  }

  unreachable(cause: unknown): Error {
    const message = cause instanceof Passing ? cause.message : reason(cause)
    return loaderError(
      'HUB_NETWORK',
      `${this.#settings.endpoint} cannot be reached for ${this.id} (there is no such folder here): ${message}. Check the network and HF_ENDPOINT, or give the folder of a model that is on this machine.`,
      { cause },
    )
  }

  #nonsense(): Error {
    return loaderError('HUB_NETWORK', `${this.#settings.endpoint} does not answer as a Hugging Face hub does. Check HF_ENDPOINT.`)
  }

  /** What goes wrong inside @huggingface/hub, its reading of answers included. */
  async #answer<T>(promise: Promise<T>): Promise<T> {
    try {
      return await promise
    } catch (error) {
      if (error instanceof AphroditeError) throw error
      this.#settings.signal?.throwIfAborted()
      throw this.#nonsense()
    }
  }

  #refused(response: Response, path: string | undefined): Error {
    const { endpoint, token, revision } = this.#settings
    const { status } = response
    const what = response.headers.get('x-error-code')
    const page = `${endpoint}/${this.id}`
    if (status === 429 || status >= 500) return new Passing(`it answered ${status} ${response.statusText}`)
    if (what === 'GatedRepo') {
      return loaderError(
        'HUB_ACCESS',
        `${this.id} is gated. Accept its terms at ${page}, then set HF_TOKEN to a token of the same account (made at ${endpoint}/settings/tokens).`,
      )
    }
    if (what === 'RevisionNotFound')
      return loaderError('HUB_NOT_FOUND', `${this.id} has no revision "${revision}". ${page} lists branches and tags.`)
    if (status === 404 && path !== undefined) return loaderError('HUB_NOT_FOUND', `${this.id} has no file ${path} at this revision.`)
    if (status === 404 || what === 'RepoNotFound') {
      return loaderError(
        'HUB_NOT_FOUND',
        `there is no folder "${this.id}" here and no model ${this.id} at ${endpoint}${token ? ' that the token may read' : '; if it is private, set HF_TOKEN'}. Check the spelling.`,
      )
    }
    if (status === 401 || status === 403) {
      const todo = token
        ? 'The token (HF_TOKEN) is not valid for it: make one that may read it'
        : 'Set HF_TOKEN to a token that may read it'
      return loaderError(
        'HUB_ACCESS',
        `${endpoint} refuses ${this.id} (${status}): it is private or gated, or does not exist. ${todo}, at ${endpoint}/settings/tokens.`,
      )
    }
    return loaderError('HUB_NETWORK', `${endpoint} answered ${status} ${response.statusText} for ${this.id}.`)
  }
}

/** An answer that may be another one in a moment. */
class Passing extends AphroditeError {
  constructor(message: string) {
    super('HUB_NETWORK', message)
  }
}

const anySignal = (a: AbortSignal, b: AbortSignal | undefined): AbortSignal => (b ? AbortSignal.any([a, b]) : a)

/** fetch says "fetch failed" and hides why in the cause. */
function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { cause } = error
  return cause instanceof Error && cause.message !== '' ? cause.message : error.message
}
