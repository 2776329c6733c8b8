import { createServer, connect as openSocket, type Server, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { llmError } from '../errors.ts'
import { version } from '../version.ts'
import { Connection } from './connection.ts'
import type { Channel } from './frames.ts'
import { greetRank0, receiveRank } from './handshake.ts'
import { isLoopback, type RankPlace } from './place.ts'

/** How long ranks wait for each other at the start. Launchers start some of them minutes after the others. */
export const START_MS = 300_000
/** Connections that have not shown yet who they are. */
const MOST_UNKNOWN = 64
const RETRY_MS = 100

/** Rank 0's ear: takes connections of ranks that know the secret, and drops all others. */
export class RankListener {
  readonly #server: Server
  readonly #place: RankPlace
  readonly #unknown = new Set<Connection>()
  readonly #connections = new Map<number, Connection>()
  #onRank: (rank: number, connection: Connection) => void = () => {}

  private constructor(place: RankPlace, channel: Channel, warn: (message: string) => void) {
    this.#place = place
    this.#server = createServer((socket) => void this.#receive(socket, channel, warn))
  }

  /** On place.port, or any free one for 0. Throws RANK_CHANNEL. */
  static async open(place: RankPlace, channel: Channel, warn: (message: string) => void): Promise<RankListener> {
    const listener = new RankListener(place, channel, warn)
    const server = listener.#server
    // A name may be that of an address which is not this machine's own, as behind a container's: all of its own are as good.
    const host = isLoopback(place.host) ? place.host : undefined
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) =>
        reject(llmError('RANK_CHANNEL', `rank 0 cannot listen on ${host ?? '*'}:${place.port}: ${error.message}`, { cause: error })),
      )
      server.listen({ port: place.port, ...(host !== undefined && { host }) }, resolve)
    })
    server.on('error', (error) => warn(error.message))
    return listener
  }

  get port(): number {
    const address = this.#server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  }

  /** Resolves with the connections of ranks 1, 2, … when all are there. Throws RANK_CHANNEL, which names those that did not come. */
  async all(ms: number): Promise<readonly Connection[]> {
    const { size } = this.#place
    const missing = (): number[] => Array.from({ length: size - 1 }, (_, i) => i + 1).filter((rank) => !this.#connections.has(rank))
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>((resolve, reject) => {
      const look = () => missing().length === 0 && resolve()
      this.#onRank = look
      timer = setTimeout(() => {
        const late = missing()
        const who = `${late.length === 1 ? 'rank' : 'ranks'} ${late.join(', ')} of ${size}`
        reject(llmError('RANK_CHANNEL', `${who} did not connect to rank 0 within ${ms / 1000} s. Were all of them started?`))
      }, ms)
      look()
    }).finally(() => clearTimeout(timer))
    return Array.from({ length: size - 1 }, (_, i) => this.#connections.get(i + 1)!)
  }

  /** No further connections; those that were made stay. */
  close(): void {
    this.#server.close()
    for (const connection of this.#unknown) connection.destroy()
  }

  async #receive(socket: Socket, channel: Channel, warn: (message: string) => void): Promise<void> {
    const connection = new Connection(socket)
    if (this.#unknown.size >= MOST_UNKNOWN) return connection.destroy()
    this.#unknown.add(connection)
    try {
      const greeted = await receiveRank(connection, this.#place, version)
      if (greeted.channel !== channel || this.#connections.has(greeted.rank))
        throw llmError('RANK_CHANNEL', `there is a rank ${greeted.rank} already`)
      this.#connections.set(greeted.rank, connection)
      this.#onRank(greeted.rank, connection)
    } catch (error) {
      warn(`a connection from ${connection.remoteAddress} was dropped: ${error instanceof Error ? error.message : String(error)}`)
      connection.close()
    } finally {
      this.#unknown.delete(connection)
    }
  }
}

/** A follower's connection to rank 0, which may not listen yet. Throws RANK_CHANNEL. */
export async function joinRank0(place: RankPlace, channel: Channel, ms: number = START_MS): Promise<Connection> {
  const where = `rank ${place.rank} could not join rank 0 at ${place.host}:${place.port}`
  const deadline = performance.now() + ms
  for (;;) {
    const socket = await openSocketTo(place).catch((error: Error) => error)
    if (socket instanceof Error) {
      if (performance.now() > deadline) throw llmError('RANK_CHANNEL', `${where} within ${ms / 1000} s: ${socket.message}`)
      await pause(RETRY_MS)
      continue
    }
    const connection = new Connection(socket)
    try {
      await greetRank0(connection, place, channel, version)
      return connection
    } catch (error) {
      connection.destroy()
      throw llmError('RANK_CHANNEL', `${where}: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
    }
  }
}

function openSocketTo({ host, port }: RankPlace): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = openSocket({ host, port })
    socket.once('connect', () => resolve(socket))
    socket.once('error', reject)
  })
}
