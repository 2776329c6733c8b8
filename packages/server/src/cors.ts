import type { FastifyInstance } from 'fastify'

/**
 * Lets web pages of these origins call the server. A preflight is answered here, before a key is asked for: browsers send
 * none with it.
 */
export function allowOrigins(app: FastifyInstance, origins: readonly string[]): void {
  const every = origins.includes('*')
  app.addHook('onRequest', async (request, reply) => {
    const { origin } = request.headers
    if (!every) reply.header('vary', 'Origin')
    if (origin === undefined || !(every || origins.includes(origin))) return
    reply.header('access-control-allow-origin', every ? '*' : origin)
    reply.header('access-control-expose-headers', 'x-request-id, x-ignored-fields')
    if (request.method !== 'OPTIONS' || request.headers['access-control-request-method'] === undefined) return
    reply.header('access-control-allow-methods', 'GET, POST')
    // Written out: a browser takes `*` to leave out authorization. OpenAI's client sends x-stainless-* of its own.
    reply.header('access-control-allow-headers', request.headers['access-control-request-headers'] ?? 'authorization, content-type')
    reply.header('access-control-max-age', '7200')
    return reply.code(204).send()
  })
}
