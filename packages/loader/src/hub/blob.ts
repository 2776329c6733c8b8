import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, mkdir, open, rename, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { AphroditeError } from '@aphrodite/tensor'
import { loaderError } from '../errors.ts'
import { loadNative } from '../native.ts'
import type { RepoCache } from './cache.ts'
import type { HubClient, RepoFile } from './client.ts'
import type { HubSettings } from './settings.ts'

/**
 * Brings one file's content into the cache: goes on where an earlier attempt was broken off, and gives it its name only
 * when its hash is right. `onReceived` is told how many bytes are there.
 */
export async function fetchBlob(
  client: HubClient,
  cache: RepoCache,
  commit: string,
  file: RepoFile,
  settings: HubSettings,
  onReceived: (bytes: number) => void,
): Promise<void> {
  const target = cache.blob(file.etag)
  const there = async (): Promise<boolean> => (await sizeOnDisk(target)) === file.size
  // Without a trace, so that a cache that may only be read can be used.
  if (await there()) return onReceived(file.size)
  await onDisk(target, () => mkdir(dirname(target), { recursive: true }))
  const unlock = await lock(cache.lock(file.etag), settings.signal)
  try {
    if (!(await there())) {
      const partial = await Partial.open(`${target}.incomplete`, file)
      try {
        const leftover = partial.received > 0
        await receive(client, commit, file, partial, settings, onReceived)
        if (leftover && !partial.isRight()) {
          // What an earlier attempt had left was of something else.
          await partial.restart()
          await receive(client, commit, file, partial, settings, onReceived)
        }
        if (!partial.isRight()) {
          await partial.restart()
          throw loaderError(
            'HUB_INTEGRITY',
            `${file.path} of ${client.id} arrived damaged: its hash is not ${file.etag}. Download it again.`,
          )
        }
      } finally {
        await partial.close()
      }
      await onDisk(target, () => rename(partial.path, target))
    }
    onReceived(file.size)
  } finally {
    await unlock()
  }
}

export const sizeOnDisk = async (path: string): Promise<number | undefined> => (await stat(path).catch(() => undefined))?.size

/** Fills a partial file, in as many connections as it takes. */
async function receive(
  client: HubClient,
  commit: string,
  file: RepoFile,
  partial: Partial,
  settings: HubSettings,
  onReceived: (bytes: number) => void,
): Promise<void> {
  let failed = 0
  while (partial.received < file.size) {
    const before = partial.received
    onReceived(before)
    const stall = new AbortController()
    const signal = settings.signal ? AbortSignal.any([stall.signal, settings.signal]) : stall.signal
    let timer = setTimeout(() => stall.abort(), settings.timeoutMs)
    try {
      const response = await client.download(commit, file.path, before, signal)
      if (!continues(response, before)) {
        await partial.restart()
        if (response.status !== 200) {
          await response.body?.cancel()
          throw new Error('it answered with another part of the file')
        }
      }
      for await (const chunk of response.body ?? []) {
        clearTimeout(timer)
        timer = setTimeout(() => stall.abort(), settings.timeoutMs)
        await partial.append(chunk)
        onReceived(partial.received)
      }
      if (partial.received < file.size) throw new Error('the connection was closed early')
    } catch (error) {
      if (!client.mayPass(error)) throw error
      // What has come in between shows that the hub is alive.
      failed = partial.received > before ? 1 : failed + 1
      if (failed >= settings.attempts) throw client.unreachable(stall.signal.aborted ? new Error('nothing comes any more') : error)
      await client.pause(failed)
    } finally {
      clearTimeout(timer)
    }
  }
}

/** Whether an answer goes on at byte `start`. */
function continues(response: Response, start: number): boolean {
  if (start === 0) return response.status === 200 || response.status === 206
  return response.status === 206 && (response.headers.get('content-range')?.startsWith(`bytes ${start}-`) ?? false)
}

/** What has arrived of a file, on disk and in its hash. */
class Partial {
  readonly path: string
  readonly #file: RepoFile
  readonly #handle: FileHandle
  #hash: Hash
  received = 0

  private constructor(path: string, file: RepoFile, handle: FileHandle) {
    this.path = path
    this.#file = file
    this.#handle = handle
    this.#hash = this.#newHash()
  }

  static async open(path: string, file: RepoFile): Promise<Partial> {
    const handle = await onDisk(path, () => open(path, 'a+'))
    const partial = new Partial(path, file, handle)
    try {
      await partial.#takeUp()
    } catch (error) {
      await handle.close()
      throw error
    }
    return partial
  }

  async append(chunk: Uint8Array): Promise<void> {
    if (this.received + chunk.length > this.#file.size) {
      await this.restart()
      throw loaderError(
        'HUB_INTEGRITY',
        `the hub sends more than the ${this.#file.size} bytes that ${this.#file.path} should have. Try again later.`,
      )
    }
    await onDisk(this.path, () => this.#handle.appendFile(chunk))
    this.#hash.update(chunk)
    this.received += chunk.length
  }

  async restart(): Promise<void> {
    if (this.received === 0) return
    await onDisk(this.path, () => this.#handle.truncate(0))
    this.received = 0
    this.#hash = this.#newHash()
  }

  /** Whether it is what the hub listed. */
  isRight(): boolean {
    return this.#hash.copy().digest('hex') === this.#file.etag
  }

  close(): Promise<void> {
    return this.#handle.close()
  }

  /** Takes what an earlier attempt has left. */
  async #takeUp(): Promise<void> {
    const { size } = await this.#handle.stat()
    if (size > this.#file.size) {
      await onDisk(this.path, () => this.#handle.truncate(0))
      return
    }
    if (size === 0) return
    for await (const chunk of createReadStream(this.path, { end: size - 1, highWaterMark: 1 << 20 })) {
      this.#hash.update(chunk as Buffer)
      this.received += (chunk as Buffer).length
    }
  }

  #newHash(): Hash {
    const { etag, size } = this.#file
    // Git's hash is of the content behind a line that says what it is.
    return etag.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`)
  }
}

/** Turns what the file system refuses into HUB_DISK. */
export async function onDisk<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action()
  } catch (cause) {
    if (cause instanceof AphroditeError) throw cause
    const { code, message } = cause as NodeJS.ErrnoException
    const why = code === 'ENOSPC' || code === 'EDQUOT' ? 'the disk is full' : message
    throw loaderError(
      'HUB_DISK',
      `${path} cannot be written: ${why}. Make room, or choose another folder with HF_HOME; what has arrived is kept.`,
      { cause },
    )
  }
}

/** Waits until nobody else downloads the same content. Without the addon nobody is waited for. */
async function lock(path: string, signal: AbortSignal | undefined): Promise<() => Promise<void>> {
  const native = loadNative()
  if (!native) return async () => {}
  await onDisk(path, () => mkdir(dirname(path), { recursive: true }))
  const handle = await onDisk(path, () => open(path, 'a'))
  try {
    while (!native.tryLock(handle.fd)) await delay(200, undefined, signal ? { signal } : {})
  } catch (error) {
    await handle.close()
    if ((error as { errno?: number }).errno === undefined) throw error
    // A file system without locks.
    return async () => {}
  }
  return () => handle.close()
}
