// A hub of one repository on this machine, and a second server that large files are redirected to, as the real one does it.
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface HubRequest {
  readonly path: string
  readonly range: string | undefined
  readonly authorization: string | undefined
}

/** What a test may do to an answer before it is given; true: it has been given. */
type Hook = (request: IncomingMessage, response: ServerResponse, path: string) => boolean

export class FakeHub {
  readonly id: string
  commit = createHash('sha1').update('1').digest('hex')
  readonly files = new Map<string, { content: Buffer; lfs: boolean }>()
  /** Requests to the hub, and to the place of large files. */
  readonly requests: HubRequest[] = []
  readonly storageRequests: HubRequest[] = []
  hook: Hook | undefined
  storageHook: Hook | undefined
  /** Changes the listing before it is sent. */
  relist: (list: Record<string, unknown>[]) => Record<string, unknown>[] = (list) => list
  pageSize = 1000
  ranges = true
  #hub: Server | undefined
  #storage: Server | undefined

  constructor(id: string) {
    this.id = id
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#hub!.address() as AddressInfo).port}`
  }

  add(path: string, content: string | Uint8Array, lfs = false): void {
    this.files.set(path, { content: Buffer.from(content), lfs })
  }

  async start(): Promise<void> {
    this.#hub = await listen((request, response) => this.#answer(request, response))
    this.#storage = await listen((request, response) => this.#store(request, response))
  }

  async stop(): Promise<void> {
    for (const server of [this.#hub, this.#storage]) {
      server?.closeAllConnections()
      await new Promise((done) => (server ? server.close(done) : done(undefined)))
    }
  }

  /** Paths of files that were asked for, of either server. */
  downloads(): string[] {
    return this.requests.filter((r) => r.path.includes('/resolve/')).map((r) => r.path.split('/').slice(5).join('/'))
  }

  #answer(request: IncomingMessage, response: ServerResponse): unknown {
    const url = new URL(request.url!, this.endpoint)
    this.requests.push(recorded(request, url))
    const path = decodeURIComponent(url.pathname)
    if (this.hook?.(request, response, path)) return undefined
    const api = `/api/models/${this.id}`
    if (path.startsWith(`${api}/revision/`)) {
      const revision = path.slice(`${api}/revision/`.length)
      if (revision !== 'main' && revision !== this.commit && revision !== 'v1') return refuse(response, 404, 'RevisionNotFound')
      return json(response, { _id: '1', id: this.id, sha: this.commit, private: false, gated: false, lastModified: new Date(0) })
    }
    if (path === `${api}/tree/${this.commit}`) {
      const list = this.relist(
        [...this.files].map(([name, { content, lfs }]) => ({
          type: 'file',
          path: name,
          size: content.length,
          oid: gitHash(lfs ? Buffer.from('pointer') : content),
          ...(lfs ? { lfs: { oid: sha256(content), size: content.length, pointerSize: 130 } } : {}),
        })),
      )
      const from = Number(url.searchParams.get('cursor') ?? 0)
      const next = from + this.pageSize
      if (next < list.length) response.setHeader('link', `<${this.endpoint}${api}/tree/${this.commit}?cursor=${next}>; rel="next"`)
      return json(response, list.slice(from, next))
    }
    const resolve = `/${this.id}/resolve/${this.commit}/`
    const file = path.startsWith(resolve) ? this.files.get(path.slice(resolve.length)) : undefined
    if (!file) return refuse(response, 404, path.startsWith(`/${this.id}/`) ? 'EntryNotFound' : 'RepoNotFound')
    if (!file.lfs) return this.#send(request, response, file.content)
    const { port } = this.#storage!.address() as AddressInfo
    response.writeHead(302, { location: `http://127.0.0.1:${port}/${encodeURIComponent(path.slice(resolve.length))}?signature=1` }).end()
    return undefined
  }

  #store(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url!, 'http://storage')
    this.storageRequests.push(recorded(request, url))
    const name = decodeURIComponent(url.pathname.slice(1))
    if (this.storageHook?.(request, response, name)) return
    this.#send(request, response, this.files.get(name)!.content)
  }

  #send(request: IncomingMessage, response: ServerResponse, content: Buffer): void {
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? -1)
    if (start < 0 || !this.ranges) {
      response.writeHead(200, { 'content-length': content.length }).end(content)
    } else if (start >= content.length) {
      response.writeHead(416, { 'content-range': `bytes */${content.length}` }).end()
    } else {
      const rest = content.subarray(start)
      response
        .writeHead(206, { 'content-length': rest.length, 'content-range': `bytes ${start}-${content.length - 1}/${content.length}` })
        .end(rest)
    }
  }
}

/** Sends so many bytes of what was asked for, then hangs up (or, with `hang`, says nothing more). */
export function breakAfter(response: ServerResponse, request: IncomingMessage, content: Buffer, bytes: number, hang = false): void {
  const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
  const rest = content.subarray(start)
  response.writeHead(start > 0 ? 206 : 200, {
    'content-length': rest.length,
    ...(start > 0 ? { 'content-range': `bytes ${start}-${content.length - 1}/${content.length}` } : {}),
  })
  response.write(rest.subarray(0, bytes), () => {
    if (!hang) setTimeout(() => response.destroy(), 20)
  })
}

export function refuse(response: ServerResponse, status: number, code?: string): void {
  response.writeHead(status, { 'content-type': 'application/json', ...(code ? { 'x-error-code': code } : {}) }).end('{"error":"refused"}')
}

function json(response: ServerResponse, body: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

const recorded = (request: IncomingMessage, url: URL): HubRequest => ({
  path: decodeURIComponent(url.pathname),
  range: request.headers.range,
  authorization: request.headers.authorization,
})

export const gitHash = (content: Uint8Array): string => createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex')
export const sha256 = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex')

async function listen(handler: (request: IncomingMessage, response: ServerResponse) => unknown): Promise<Server> {
  const server = createServer(handler)
  await new Promise<void>((done) => server.listen(0, done))
  return server
}
