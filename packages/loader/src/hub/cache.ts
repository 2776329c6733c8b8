import { randomUUID } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { copyFile, mkdir, readlink, rename, symlink, writeFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { loaderError } from '../errors.ts'
import { findWeightFiles } from '../weight-files.ts'

export const isCommit = (revision: string): boolean => /^[0-9a-f]{40}$/.test(revision)

/**
 * One repository in the folder that Python's huggingface_hub keeps, so that both find what the other has downloaded:
 *
 *     models--org--name/refs/main                      the commit that a branch or tag was last seen at
 *     models--org--name/snapshots/COMMIT/config.json   a link to ../../blobs/ETAG
 *     models--org--name/blobs/ETAG                     a file's content, by its git or SHA-256 hash
 *     models--org--name/blobs/ETAG.incomplete          what has arrived of it
 *     .locks/models--org--name/ETAG.lock               held by who downloads it
 */
export class RepoCache {
  readonly id: string
  readonly #root: string
  readonly #name: string

  constructor(root: string, id: string) {
    this.#root = root
    this.id = id
    this.#name = `models--${id.replaceAll('/', '--')}`
  }

  get folder(): string {
    return join(this.#root, this.#name)
  }
  blob(etag: string): string {
    return join(this.folder, 'blobs', etag)
  }
  lock(etag: string): string {
    return join(this.#root, '.locks', this.#name, `${etag}.lock`)
  }
  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit)
  }

  /** The commit that a revision was last seen at; undefined when it was never downloaded. */
  commitOf(revision: string): string | undefined {
    if (isCommit(revision)) return revision
    try {
      const commit = readFileSync(join(this.folder, 'refs', revision), 'utf8').trim()
      return isCommit(commit) ? commit : undefined
    } catch {
      return undefined
    }
  }

  async setCommit(revision: string, commit: string): Promise<void> {
    if (this.commitOf(revision) === commit) return
    const path = join(this.folder, 'refs', revision)
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, commit)
  }

  /** The snapshot's folder, when config.json and every file of weights is there. */
  complete(commit: string): string | undefined {
    const folder = this.snapshot(commit)
    const has = (name: string): boolean => existsSync(join(folder, name))
    if (!has('config.json')) return undefined
    try {
      // Links to blobs that never came count as absent.
      return findWeightFiles(folder).names.every(has) ? folder : undefined
    } catch {
      return undefined
    }
  }

  /** Whether anything of this commit is there. */
  hasAny(commit: string): boolean {
    try {
      return readdirSync(this.snapshot(commit)).length > 0
    } catch {
      return false
    }
  }

  /** Puts a file into a snapshot: a relative link, so that the folder can be moved; a copy where links are not allowed. */
  async link(commit: string, path: string, etag: string): Promise<void> {
    const pointer = join(this.snapshot(commit), path)
    const target = relative(dirname(pointer), this.blob(etag))
    if ((await readlink(pointer).catch(() => undefined)) === target) return
    await mkdir(dirname(pointer), { recursive: true })
    const temporary = `${pointer}.${randomUUID()}`
    try {
      await symlink(target, temporary)
    } catch (error) {
      // Windows without the right to make links.
      if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error
      await copyFile(this.blob(etag), temporary)
    }
    await rename(temporary, pointer)
  }
}

/** Throws HUB_INTEGRITY for a name that would leave the snapshot's folder, or a hash that is none. */
export function checkRepoFile(id: string, path: string, etag: string): void {
  const parts = path.split('/')
  if (parts.some((part) => part === '' || part === '.' || part === '..' || /[\\\0]|^[A-Za-z]:/.test(part)))
    throw loaderError(
      'HUB_INTEGRITY',
      `${id} has a file ${JSON.stringify(path.slice(0, 80))}, which is no safe file name. Do not use this repository.`,
    )
  if (!/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(etag))
    throw loaderError(
      'HUB_INTEGRITY',
      `the hub names no valid hash for ${path} of ${id}. Is the endpoint (HF_ENDPOINT) a Hugging Face hub?`,
    )
}
