import { randomUUID } from 'node:crypto'
import type { LanguageModel } from '@aphrodite/llm'
import fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from 'fastify'
import { shuttingDown } from './api-error.ts'
import { requireKey } from './auth.ts'
import type { ServerContext } from './context.ts'
import { allowOrigins } from './cors.ts'
import { answerBrokenHttp, answerFailures, sendFailure } from './failures.ts'
import { takeJsonOnly } from './json-body.ts'
import { Lifetime } from './lifetime.ts'
import { answerUnknownRoutes } from './not-found.ts'
import { registerOpenApi } from './openapi.ts'
import { type ResolvedServerOptions, resolveServerOptions, type ServerOptions } from './options.ts'
import { chatCompletionRoutes } from './routes/chat-completions.ts'
import { completionRoutes } from './routes/completions.ts'
import { detokenizeRoutes } from './routes/detokenize.ts'
import { healthRoutes } from './routes/health.ts'
import { modelRoutes } from './routes/models.ts'
import { openapiRoutes } from './routes/openapi.ts'
import { tokenizeRoutes } from './routes/tokenize.ts'
import { versionRoutes } from './routes/version.ts'
import { validatorCompiler } from './validation.ts'

/**
 * An OpenAI-compatible server for a model, not listening yet. `close()` takes no new requests, lets the running ones end,
 * and aborts those still there after `shutdownTimeout`. The model stays open: it is the caller's.
 *
 * Throws BAD_SERVER_OPTION.
 */
export function createServer(llm: LanguageModel, options: ServerOptions = {}): FastifyInstance {
  const resolved = resolveServerOptions(options)
  const lifetime = new Lifetime()
  const context: ServerContext = {
    llm,
    options: resolved,
    lifetime,
    modelNames: resolved.servedModelNames ?? [llm.info.model],
    created: Math.floor(Date.now() / 1000),
  }
  const app = fastify({
    ...logging(resolved),
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: resolved.bodyLimit,
    requestTimeout: resolved.requestTimeout,
    genReqId: ({ headers }) => requestId(headers['x-request-id']),
    routerOptions: { maxParamLength: 1024 },
    return503OnClosing: false,
    clientErrorHandler: answerBrokenHttp,
    frameworkErrors: (error, request, reply) => void sendFailure(error, request, reply),
  })
  app.setValidatorCompiler(validatorCompiler)
  // The types of the handlers say what an answer is; the compiled serialisers would drop what a schema does not name.
  app.setSerializerCompiler(() => JSON.stringify)
  takeJsonOnly(app, resolved.bodyLimit)
  answerFailures(app)
  answerUnknownRoutes(app)

  if (resolved.logRequests) logRequests(app)
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id)
    if (lifetime.draining) throw shuttingDown()
  })
  if (resolved.corsOrigins.length > 0) allowOrigins(app, resolved.corsOrigins)
  const keys = [resolved.apiKey].flat()
  if (keys.length > 0) requireKey(app, keys)
  cutOffSlowReaders(app, resolved.slowReaderTimeout)
  closeGracefully(app, lifetime, resolved.shutdownTimeout)

  app.register(async (scoped) => {
    await registerOpenApi(scoped, keys.length > 0)
    for (const routes of [modelRoutes, completionRoutes, chatCompletionRoutes, tokenizeRoutes, detokenizeRoutes, healthRoutes])
      routes(scoped, context)
    versionRoutes(scoped)
    openapiRoutes(scoped)
  })
  return app
}

function logging({ logger }: ResolvedServerOptions): { logger: boolean | { level: string } } | { loggerInstance: FastifyBaseLogger } {
  if (typeof logger === 'object') return { loggerInstance: logger }
  return { logger: typeof logger === 'string' ? { level: logger } : logger }
}

/** The client's own id, where it is one that can stand in a header and in a log; else a new one. */
const requestId = (given: string | string[] | undefined): string =>
  typeof given === 'string' && /^[\w.:-]{1,128}$/.test(given) ? given : randomUUID().replaceAll('-', '')

/** At the close of the answer and not at its end: one whose client has gone has no end. nginx's 499 stands for those. */
function logRequests(app: FastifyInstance): void {
  app.addHook('onRequest', async (request, reply) => {
    reply.raw.once('close', () => {
      const { statusCode, writableFinished } = reply.raw
      const path = request.url.split('?', 1)[0]
      const status = writableFinished ? statusCode : 499
      request.log.info({ method: request.method, path, status, ms: Math.round(reply.elapsedTime) }, 'request')
    })
  })
}

/** For whole answers: a socket that takes nothing for so long is closed. Streams have a rule of their own, in sse.ts. */
function cutOffSlowReaders(app: FastifyInstance, timeout: number): void {
  app.addHook('onSend', async (_request, reply, payload) => {
    if (typeof payload === 'string' && payload.length > 16 * 1024) reply.raw.setTimeout(timeout, () => reply.raw.destroy())
    return payload
  })
}

function closeGracefully(app: FastifyInstance, lifetime: Lifetime, timeout: number): void {
  const deadlines: NodeJS.Timeout[] = []
  app.addHook('preClose', async () => {
    lifetime.drain()
    deadlines.push(
      setTimeout(() => lifetime.abortAll(), timeout),
      // Whoever does not take even the error that this gives is cut off.
      setTimeout(() => app.server.closeAllConnections(), timeout + 1000),
    )
  })
  app.addHook('onResponse', async (request) => {
    // A connection that was busy when the server closed would be kept alive, and the server with it.
    if (lifetime.draining) setImmediate(() => request.raw.socket.destroySoon())
  })
  app.addHook('onClose', async () => {
    for (const deadline of deadlines) clearTimeout(deadline)
  })
}
