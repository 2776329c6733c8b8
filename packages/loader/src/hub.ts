import { existsSync, statSync } from 'node:fs'
import { mkdir, readFile, statfs } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { AphroditeError } from '@aphrodite/tensor'
import { loaderError } from './errors.ts'
import { fetchBlob, onDisk, sizeOnDisk } from './hub/blob.ts'
import { checkRepoFile, isCommit, RepoCache } from './hub/cache.ts'
import { HubClient, type RepoFile } from './hub/client.ts'
import { selectMatching, selectModel } from './hub/select.ts'
import { type HubOptions, type HubSettings, hubSettings } from './hub/settings.ts'
import { INDEX, parseIndex } from './weight-files.ts'

export { HUB_DEFAULTS, type HubOptions, type HubProgress } from './hub/settings.ts'

/**
 * The folder of a model: a folder that is there, or a Hugging Face hub id (`org/name`), which is downloaded into the cache
 * that Python's huggingface_hub uses unless it is there already. Downloads go on where they were broken off. Throws
 * MODEL_NOT_FOUND for what is neither, HUB_… for what the hub or the disk refuses.
 */
export async function resolveModel(idOrPath: string, options: HubOptions = {}): Promise<string> {
  const settings = hubSettings(options)
  if (existsSync(idOrPath)) return localFolder(idOrPath)
  if (!isHubId(idOrPath)) {
    throw loaderError(
      'MODEL_NOT_FOUND',
      `there is no folder "${idOrPath.slice(0, 200)}" (seen from ${process.cwd()}), and it is no Hugging Face hub id such as "org/name". Check the path.`,
    )
  }
  const cache = new RepoCache(settings.cacheDir, idOrPath)
  const cached = inCache(cache, settings)
  if (settings.offline) return cached ?? notOffline(cache, settings)
  // A commit never changes. Others may have fetched its weights alone.
  const fixed = isCommit(settings.revision) && settings.allowPatterns === undefined
  if (cached !== undefined && fixed && existsSync(join(cached, 'tokenizer.json'))) return cached
  const client = new HubClient(idOrPath, settings)
  let commit: string
  try {
    commit = await client.commit(cached !== undefined)
  } catch (error) {
    // Without a network, what was downloaded before is good enough.
    if (cached !== undefined && error instanceof AphroditeError && error.code === 'HUB_NETWORK') return cached
    throw error
  }
  await download(client, cache, commit, settings)
  await onDisk(cache.folder, () => cache.setCommit(settings.revision, commit))
  return cache.snapshot(commit)
}

/** `org/name` or `name`, by the hub's own rules. */
export function isHubId(text: string): boolean {
  if (text.length > 96 || /--|\.\.|\.git$/.test(text)) return false
  return /^(?:[A-Za-z0-9_][\w.-]*\/)?[A-Za-z0-9_][\w.-]*$/.test(text) && !text.split('/').some((part) => /[.-]$/.test(part))
}

function localFolder(path: string): string {
  if (statSync(path).isDirectory()) return resolve(path)
  throw loaderError('MODEL_NOT_FOUND', `${path} is a file; give the folder that it lies in: ${dirname(resolve(path))}`)
}

/** The snapshot to use without asking anybody. */
function inCache(cache: RepoCache, { revision, allowPatterns }: HubSettings): string | undefined {
  const commit = cache.commitOf(revision)
  if (commit === undefined) return undefined
  if (allowPatterns === undefined) return cache.complete(commit)
  return cache.hasAny(commit) ? cache.snapshot(commit) : undefined
}

function notOffline(cache: RepoCache, { revision }: HubSettings): never {
  const commit = cache.commitOf(revision)
  const state = commit !== undefined && cache.hasAny(commit) ? 'is not complete' : 'has not been downloaded'
  throw loaderError(
    'HUB_OFFLINE',
    `${cache.id} (${revision}) ${state} in ${cache.folder}, and HF_HUB_OFFLINE forbids asking the hub. Unset it, or give a folder.`,
  )
}

/** Everything that is wanted of a commit: what describes the model first, so that weights are there only when all else is. */
async function download(client: HubClient, cache: RepoCache, commit: string, settings: HubSettings): Promise<void> {
  const files = await client.files(commit)
  const selection = settings.allowPatterns ? selectMatching(client.id, files, settings.allowPatterns) : selectModel(client.id, files)
  const queue = new Queue(client, cache, commit, settings)
  queue.add(selection.small)
  if (!selection.needsIndex) queue.add(selection.weights(undefined))
  await queue.checkRoom()
  await queue.run(selection.small)
  if (selection.needsIndex) {
    const path = join(cache.snapshot(commit), INDEX)
    queue.add(selection.weights(parseIndex(await onDisk(path, () => readFile(path, 'utf8')), path)))
    await queue.checkRoom()
  }
  await queue.run()
}

const REPORT_EVERY_MS = 100

/** Files that are wanted, one after the other, and how far they are together. */
class Queue {
  readonly #client: HubClient
  readonly #cache: RepoCache
  readonly #commit: string
  readonly #settings: HubSettings
  readonly #received = new Map<RepoFile, number>()
  readonly #done = new Set<RepoFile>()
  #reported = { file: '', at: 0 }

  constructor(client: HubClient, cache: RepoCache, commit: string, settings: HubSettings) {
    this.#client = client
    this.#cache = cache
    this.#commit = commit
    this.#settings = settings
  }

  add(files: readonly RepoFile[]): void {
    for (const file of files) {
      checkRepoFile(this.#client.id, file.path, file.etag)
      this.#received.set(file, 0)
    }
  }

  /** Throws HUB_DISK before anything is downloaded when it cannot all fit. */
  async checkRoom(): Promise<void> {
    const { cacheDir } = this.#settings
    await onDisk(cacheDir, () => mkdir(cacheDir, { recursive: true }))
    let needed = 0
    for (const file of this.#received.keys()) {
      const blob = this.#cache.blob(file.etag)
      if ((await sizeOnDisk(blob)) !== file.size) needed += file.size - Math.min(file.size, (await sizeOnDisk(`${blob}.incomplete`)) ?? 0)
    }
    const { bavail, bsize } = await statfs(cacheDir)
    if (needed > bavail * bsize) {
      throw loaderError(
        'HUB_DISK',
        `${this.#client.id} needs ${gigabytes(needed)} more in ${cacheDir}, where ${gigabytes(bavail * bsize)} are free. Make room, or choose another folder with HF_HOME.`,
      )
    }
  }

  async run(files: Iterable<RepoFile> = this.#received.keys()): Promise<void> {
    for (const file of files) {
      if (this.#done.has(file)) continue
      await fetchBlob(this.#client, this.#cache, this.#commit, file, this.#settings, (bytes) => this.#report(file, bytes))
      await onDisk(this.#cache.folder, () => this.#cache.link(this.#commit, file.path, file.etag))
      this.#done.add(file)
    }
  }

  #report(file: RepoFile, received: number): void {
    this.#received.set(file, received)
    const now = performance.now()
    if (received < file.size && file.path === this.#reported.file && now - this.#reported.at < REPORT_EVERY_MS) return
    this.#reported = { file: file.path, at: now }
    this.#settings.onProgress?.({
      file: file.path,
      received,
      size: file.size,
      totalReceived: [...this.#received.values()].reduce((a, b) => a + b, 0),
      totalSize: [...this.#received.keys()].reduce((sum, f) => sum + f.size, 0),
    })
  }
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`
