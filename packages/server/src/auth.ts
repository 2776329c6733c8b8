import { createHash, timingSafeEqual } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import { ApiError } from './api-error.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Answered without an API key. */
    public?: boolean
  }
}

const digest = (text: string): Buffer => createHash('sha256').update(text).digest()

/**
 * Asks for `Authorization: Bearer KEY` before a body is read. Digests are compared, all of them and in constant time, so
 * that the time an answer takes says nothing about a key or its length.
 */
export function requireKey(app: FastifyInstance, keys: readonly string[]): void {
  const digests = keys.map(digest)
  app.addHook('onRequest', async (request) => {
    if (request.is404 || request.routeOptions.config.public) return
    const given = /^Bearer +(.+)$/i.exec(request.headers.authorization ?? '')?.[1]
    const found = digest(given ?? '')
    let right = false
    for (const key of digests) right = timingSafeEqual(key, found) || right
    if (given !== undefined && right) return
    const message =
      given === undefined
        ? 'This server needs an API key, as the header "Authorization: Bearer KEY".'
        : 'This API key is not one of this server’s.'
    throw new ApiError(401, 'invalid_api_key', message, { headers: { 'www-authenticate': 'Bearer' } })
  })
}
