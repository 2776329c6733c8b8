import { connect, type Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import OpenAI from 'openai'
import { afterEach } from 'vitest'
import { createServer, listen, type ServerOptions } from '../src/index.ts'
import { FakeModel, type Script } from './fake-model.ts'

const open: FastifyInstance[] = []
afterEach(async () => {
  for (const app of open.splice(0)) {
    app.server.closeAllConnections()
    await app.close()
  }
})

/** A server with a scripted model on a free port, closed after the test, and a client of it. */
export async function serve(script: Script = {}, options: ServerOptions = {}) {
  const llm = new FakeModel(script)
  const app = createServer(llm, { shutdownTimeout: 0, ...options })
  open.push(app)
  const url = await listen(app, { port: 0 })
  const port = Number(new URL(url).port)
  const key = [options.apiKey ?? 'none'].flat()[0]!
  const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 })
  const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
    fetch(`${url}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    })
  return { llm, app, url, port, openai, post }
}

export function httpRequest(path: string, body: unknown, headers = ''): string {
  const text = JSON.stringify(body)
  return `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\n${headers}\r\n${text}`
}

/** A bare connection that has sent a request. */
export function rawRequest(port: number, path: string, body: unknown, headers = ''): Socket {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  socket.write(httpRequest(path, body, headers))
  return socket
}

/** Waits until something holds; fails after a while by saying what. */
export async function until(what: string, holds: () => boolean, timeout = 5000): Promise<void> {
  const end = performance.now() + timeout
  while (!holds()) {
    if (performance.now() > end) throw new Error(`never came true: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** The events of a stream's text: the data of each, parsed. */
export const eventsOf = (text: string): unknown[] =>
  text
    .split('\n\n')
    .filter((event) => event.startsWith('data: ') && event !== 'data: [DONE]')
    .map((event) => JSON.parse(event.slice(6)) as unknown)
