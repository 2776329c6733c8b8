import type { FastifyInstance } from 'fastify'
import { ApiError } from './api-error.ts'

/** 404 for a path that nobody has; 405 with `Allow` for one that takes other methods. Call before the routes are there. */
export function answerUnknownRoutes(app: FastifyInstance): void {
  const methods = new Map<string, Set<string>>()
  app.addHook('onRoute', ({ url, method }) => {
    const known = methods.get(url) ?? new Set()
    for (const one of [method].flat()) known.add(one)
    methods.set(url, known)
  })
  app.setNotFoundHandler((request) => {
    const path = request.url.split('?', 1)[0]!
    const allowed = methods.get(path) ?? [...methods].find(([url]) => url.endsWith('*') && path.startsWith(url.slice(0, -1)))?.[1]
    if (allowed) {
      const allow = [...allowed].join(', ')
      throw new ApiError(405, 'method_not_allowed', `${path.slice(0, 200)} takes ${allow}, not ${request.method}.`, { headers: { allow } })
    }
    throw new ApiError(404, 'not_found', `There is nothing at ${request.method} ${path.slice(0, 200)}; /openapi.json lists what there is.`)
  })
}
