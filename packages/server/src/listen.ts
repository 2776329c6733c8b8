import type { FastifyInstance } from 'fastify'
import { serverError } from './errors.ts'

export interface ListenOptions {
  /** Default 127.0.0.1: this machine alone. */
  readonly host?: string
  /** Default 2242; 0: any free one. */
  readonly port?: number
}

/**
 * Listens, and returns the URL to call. Throws PORT_IN_USE; CANNOT_LISTEN where the port is not this user's or the address
 * not this machine's.
 */
export async function listen(app: FastifyInstance, options: ListenOptions = {}): Promise<string> {
  const { host = '127.0.0.1', port = 2242 } = options
  try {
    await app.listen({ host, port })
  } catch (error) {
    throw listenError(error, host, port)
  }
  const address = app.server.address()
  const bound = typeof address === 'object' && address ? address.port : port
  // 0.0.0.0 and :: are every address, and none that can be called.
  const name = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host.includes(':') ? `[${host}]` : host
  return `http://${name}:${bound}`
}

function listenError(error: unknown, host: string, port: number): unknown {
  switch ((error as NodeJS.ErrnoException).code) {
    case 'EADDRINUSE':
      return serverError(
        'PORT_IN_USE',
        `port ${port} of ${host} is in use by another process. Stop it, or choose another port, or 0 for any free one.`,
        { cause: error },
      )
    case 'EACCES':
      return serverError('CANNOT_LISTEN', `this user may not listen on port ${port}. Choose one from 1024 on.`, { cause: error })
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return serverError(
        'CANNOT_LISTEN',
        `${host} is not an address of this machine. 127.0.0.1 is this machine alone, 0.0.0.0 every network it is on.`,
        { cause: error },
      )
    case 'ERR_SOCKET_BAD_PORT':
      return serverError('CANNOT_LISTEN', `port should be a whole number from 0 to 65535, is ${port}.`, { cause: error })
    default:
      return error
  }
}
