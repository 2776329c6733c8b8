import type { Socket } from 'node:net'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { ApiError, toApiError } from './api-error.ts'

/** Turns everything thrown on the way of a request into OpenAI's form, and logs what is the server's own fault. */
export function answerFailures(app: FastifyInstance): void {
  app.setErrorHandler((error, request, reply) => sendFailure(error, request, reply))
}

export function sendFailure(thrown: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const error = fromFastify(thrown, request) ?? toApiError(thrown)
  if (error.status >= 500) request.log.error({ err: error.cause ?? error }, error.message)
  return reply.code(error.status).headers(error.headers).type('application/json; charset=utf-8').send(error.body)
}

/** fastify's own errors, said for people who know this server and not fastify. */
function fromFastify(thrown: unknown, request: FastifyRequest): ApiError | undefined {
  if (!(thrown instanceof Error) || thrown instanceof ApiError) return undefined
  const { code, statusCode } = thrown as FastifyError
  switch (code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE': {
      const limit = request.routeOptions.bodyLimit.toLocaleString('en-US')
      return new ApiError(413, 'body_too_large', `The body is larger than ${limit} bytes, the limit of this server.`, {
        headers: { connection: 'close' },
      })
    }
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new ApiError(415, 'unsupported_content_type', 'The body should be JSON, with the header "Content-Type: application/json".', {
        headers: { connection: 'close' },
      })
  }
  // What is left below 500 is about the form of the HTTP request and says so: length, address, encoding.
  return statusCode !== undefined && statusCode >= 400 && statusCode < 500
    ? new ApiError(statusCode, 'invalid_http_request', thrown.message)
    : undefined
}

/** Answers bytes that are not HTTP, on the bare socket: there is no request yet. */
export function answerBrokenHttp(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable || socket.bytesWritten > 0) {
    socket.destroy()
    return
  }
  const [status, phrase] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? [431, 'Request Header Fields Too Large']
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? [408, 'Request Timeout']
        : [400, 'Bad Request']
  const message =
    status === 400 ? 'This is not an HTTP request.' : status === 431 ? 'The headers are too large.' : 'The request came too slowly.'
  const body = JSON.stringify(new ApiError(status as number, 'invalid_http_request', message).body)
  socket.end(
    `HTTP/1.1 ${status} ${phrase}\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  )
}
