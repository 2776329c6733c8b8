import { setTimeout as pause } from 'node:timers/promises'
import { type RankFrame, rankFailure } from '@aphrodite/engine'
import { tensorError } from '@aphrodite/tensor'
import { llmError } from '../errors.ts'
import type { Connection } from './connection.ts'
import type { RankPlace } from './place.ts'
import { joinRank0, RankListener, START_MS } from './rendezvous.ts'

/** What a rank's engine has of the others: values that all of them exchange, before there are steps. */
export interface RankGroup {
  readonly rank: number
  readonly size: number
  /**
   * Every rank's value, in order of rank. All ranks exchange the same topics in the same order. read: checks a value that came
   * over the wire; undefined is a refusal. Throws RANK_FAILED, RANK_CHANNEL.
   */
  exchange<T>(topic: string, mine: T, read: (value: unknown) => T | undefined): Promise<readonly T[]>
  /** What was sent still goes out. */
  close(): void
}

/** A rank that ends says why on another way, which should be heard before that it is gone. */
const REASON_MS = 1500

/** Rank 0's. */
export class LeaderGroup implements RankGroup {
  readonly rank = 0
  readonly size: number
  readonly #listener: RankListener
  #connections: readonly Connection[] = []

  private constructor(size: number, listener: RankListener) {
    this.size = size
    this.#listener = listener
  }

  /** Listens on a port of its own. */
  static async open(place: RankPlace, warn: (message: string) => void): Promise<LeaderGroup> {
    return new LeaderGroup(place.size, await RankListener.open({ ...place, port: 0 }, 'engine', warn))
  }

  get port(): number {
    return this.#listener.port
  }

  async connected(): Promise<void> {
    this.#connections = await this.#listener.all(START_MS)
    this.#listener.close()
  }

  async exchange<T>(topic: string, mine: T, read: (value: unknown) => T | undefined): Promise<readonly T[]> {
    const values = [mine]
    for (const [i, connection] of this.#connections.entries()) {
      const rank = i + 1
      const message = await fromRank(rank, connection.next())
      const value = message.type === 'offer' && message.topic === topic ? read(message.value) : undefined
      if (value === undefined) throw llmError('RANK_CHANNEL', `rank ${rank} did not send what was expected for "${topic}"`)
      values.push(value)
    }
    for (const connection of this.#connections) connection.send({ type: 'offers', topic, values })
    return values
  }

  /** To every other rank. */
  send(frame: RankFrame): void {
    for (const connection of this.#connections) connection.send({ type: 'step', ...frame })
  }

  close(): void {
    this.#listener.close()
    for (const connection of this.#connections) connection.close()
  }
}

/** The other ranks'. */
export class FollowerGroup implements RankGroup {
  readonly rank: number
  readonly size: number
  readonly #connection: Connection

  private constructor({ rank, size }: RankPlace, connection: Connection) {
    this.rank = rank
    this.size = size
    this.#connection = connection
  }

  /** place: with the port of rank 0's engine. */
  static async open(place: RankPlace): Promise<FollowerGroup> {
    return new FollowerGroup(place, await joinRank0(place, 'engine'))
  }

  /** How this machine is reached from where rank 0 is. */
  get address(): string {
    return this.#connection.localAddress
  }

  async exchange<T>(topic: string, mine: T, read: (value: unknown) => T | undefined): Promise<readonly T[]> {
    this.#connection.send({ type: 'offer', topic, value: mine })
    const message = await fromRank(0, this.#connection.next())
    const values = message.type === 'offers' && message.topic === topic ? message.values.map(read) : []
    if (values.length !== this.size || values.includes(undefined))
      throw llmError('RANK_CHANNEL', `rank 0 did not send what was expected for "${topic}"`)
    return values as readonly T[]
  }

  /** The next frame of rank 0. Throws RANK_FAILED when it is gone. */
  async next(): Promise<RankFrame> {
    const message = await fromRank(0, this.#connection.next())
    if (message.type !== 'step') throw llmError('RANK_CHANNEL', `rank 0 sent ${message.type} where a step should be`)
    return message
  }

  close(): void {
    this.#connection.close()
  }
}

async function fromRank<T>(rank: number, coming: Promise<T>): Promise<T> {
  try {
    return await coming
  } catch (error) {
    await pause(REASON_MS)
    throw rankFailure(rank, tensorError('RANK_FAILED', `rank ${rank} is gone: ${error instanceof Error ? error.message : String(error)}`))
  }
}
