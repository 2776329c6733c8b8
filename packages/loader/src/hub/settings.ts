import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { loaderError } from '../errors.ts'
import { withDefaults } from '../options.ts'

export interface HubProgress {
  /** Path of the file within the repository. */
  readonly file: string
  readonly received: number
  readonly size: number
  /** Over all files that this call needs, those that were there already included. Bytes. */
  readonly totalReceived: number
  readonly totalSize: number
}

/** Every one may be left out; what the environment says then counts. */
export interface HubOptions {
  /** A branch, a tag or a commit. */
  readonly revision?: string
  /** `HF_HUB_CACHE`, else `hub` in `HF_HOME`: the folder that Python's huggingface_hub uses. */
  readonly cacheDir?: string
  /** `HF_TOKEN`, else the file that `hf auth login` writes. */
  readonly token?: string
  /** `HF_ENDPOINT`, else https://huggingface.co. */
  readonly endpoint?: string
  /** `HF_HUB_OFFLINE=1`: only what was downloaded before. */
  readonly offline?: boolean
  /** Which files, such as `tokenizer*`; `*` stands for anything. Unset: what a model needs to run. */
  readonly allowPatterns?: readonly string[]
  readonly onProgress?: (progress: HubProgress) => void
  readonly signal?: AbortSignal
  /** How often in a row something may fail before it is an error. What arrives in between starts the count again. */
  readonly attempts?: number
  /** Before the first repetition; doubled with each further one. */
  readonly retryDelayMs?: number
  /** A connection on which nothing comes for so long counts as broken off. */
  readonly timeoutMs?: number
}

export const HUB_DEFAULTS = Object.freeze({ revision: 'main', attempts: 5, retryDelayMs: 500, timeoutMs: 30_000 })

export interface HubSettings {
  readonly revision: string
  readonly cacheDir: string
  readonly token: string | undefined
  /** Without a slash at the end. */
  readonly endpoint: string
  readonly offline: boolean
  readonly allowPatterns: readonly string[] | undefined
  readonly onProgress: ((progress: HubProgress) => void) | undefined
  readonly signal: AbortSignal | undefined
  readonly attempts: number
  readonly retryDelayMs: number
  readonly timeoutMs: number
}

const OPTIONS = [
  'revision',
  'cacheDir',
  'token',
  'endpoint',
  'offline',
  'allowPatterns',
  'onProgress',
  'signal',
  'attempts',
  'retryDelayMs',
  'timeoutMs',
]

type Environment = Readonly<Record<string, string | undefined>>

/** Options over environment over defaults; an empty variable counts as none. */
export function hubSettings(options: HubOptions, env: Environment = process.env): HubSettings {
  const given = withDefaults<HubOptions & typeof HUB_DEFAULTS>('resolveModel', { ...HUB_DEFAULTS }, OPTIONS, options)
  const home = given.cacheDir === undefined ? hubHome(env) : ''
  return {
    revision: checkRevision(given.revision),
    cacheDir: expand(given.cacheDir ?? (env['HF_HUB_CACHE'] || env['HUGGINGFACE_HUB_CACHE'] || join(home, 'hub'))),
    token: checkToken(given.token ?? (env['HF_TOKEN'] || env['HUGGING_FACE_HUB_TOKEN'] || storedToken(env))),
    endpoint: checkEndpoint(given.endpoint ?? (env['HF_ENDPOINT'] || 'https://huggingface.co')),
    offline: given.offline ?? (isTrue(env['HF_HUB_OFFLINE']) || isTrue(env['TRANSFORMERS_OFFLINE'])),
    allowPatterns: given.allowPatterns,
    onProgress: given.onProgress,
    signal: given.signal,
    attempts: given.attempts,
    retryDelayMs: given.retryDelayMs,
    timeoutMs: given.timeoutMs,
  }
}

const hubHome = (env: Environment): string => env['HF_HOME'] || join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'huggingface')

const expand = (path: string): string => (path === '~' || path.startsWith('~/') ? join(homedir(), path.slice(1)) : path)

const isTrue = (value: string | undefined): boolean => /^(1|on|yes|true)$/i.test(value ?? '')

function storedToken(env: Environment): string | undefined {
  try {
    return readFileSync(expand(env['HF_TOKEN_PATH'] || join(hubHome(env), 'token')), 'utf8')
  } catch {
    return undefined
  }
}

/** It must fit into a header; the error does not repeat it. */
function checkToken(token: string | undefined): string | undefined {
  const trimmed = token?.trim()
  if (trimmed && !/^[\x21-\x7e]+$/.test(trimmed))
    throw loaderError('LOADER_OPTION', 'the hub token (HF_TOKEN) has characters that no token has. Copy it again.')
  return trimmed || undefined
}

function checkEndpoint(endpoint: string): string {
  if (!URL.canParse(endpoint) || !/^https?:$/.test(new URL(endpoint).protocol))
    throw loaderError(
      'LOADER_OPTION',
      `the hub's endpoint should be an http(s) address such as https://huggingface.co, is "${endpoint}" (HF_ENDPOINT).`,
    )
  return endpoint.replace(/\/+$/, '')
}

/** It becomes a file name in the cache and a part of addresses. */
function checkRevision(revision: string): string {
  if (!/^[\w][\w./-]*$/.test(revision) || revision.split('/').some((part) => part === '' || part === '..' || part === '.'))
    throw loaderError('LOADER_OPTION', `"${revision.slice(0, 80)}" cannot be a revision: give a branch, a tag or a commit.`)
  return revision
}
