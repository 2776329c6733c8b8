import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { llmError } from '../errors.ts'
import type { Connection } from './connection.ts'
import type { Channel, MessageOf } from './frames.ts'
import type { RankPlace } from './place.ts'

/** For a greeting, which takes no longer than a few ways there and back. */
export const GREETING_MS = 10_000

const hmac = (secret: string, ...parts: readonly string[]): Buffer => createHmac('sha256', secret).update(JSON.stringify(parts)).digest()
const equal = (hex: string, expected: Buffer): boolean => timingSafeEqual(Buffer.from(hex, 'hex'), expected)

/** What a follower's proof covers: all that it says, and what it was asked. */
const proofOf = (secret: string, challenge: string, hello: Omit<MessageOf<'hello'>, 'proof' | 'type'>): Buffer =>
  hmac(secret, 'rank', challenge, hello.nonce, hello.channel, String(hello.rank), String(hello.size), hello.version)

function secure(connection: Connection, secret: string, challenge: string, nonce: string, leads: boolean): void {
  const down = hmac(secret, 'from rank 0', challenge, nonce)
  const up = hmac(secret, 'to rank 0', challenge, nonce)
  connection.secure(leads ? down : up, leads ? up : down)
}

/** The other end of a connection that has proved that it belongs here. */
export interface Greeted {
  readonly connection: Connection
  readonly channel: Channel
  readonly rank: number
}

/** Rank 0's side. Throws RANK_CHANNEL, when the other end has been told why. */
export async function receiveRank(connection: Connection, { size, secret }: RankPlace, version: string): Promise<Greeted> {
  const challenge = randomBytes(32).toString('hex')
  connection.send({ type: 'challenge', nonce: challenge })
  const hello = await connection.expect('hello', GREETING_MS)
  const refuse = (reason: string): never => {
    connection.send({ type: 'refused', reason })
    throw llmError('RANK_CHANNEL', reason)
  }
  if (!equal(hello.proof, proofOf(secret, challenge, hello))) refuse('the secret is not the one of rank 0')
  if (hello.version !== version) refuse(`rank ${hello.rank} has version ${hello.version} of Aphrodite, rank 0 has ${version}`)
  if (hello.size !== size) refuse(`rank ${hello.rank} is one of ${hello.size} ranks, rank 0 one of ${size}`)
  if (hello.rank === 0 || hello.rank >= size) refuse(`there is no place for a rank ${hello.rank} beside rank 0 of ${size}`)
  connection.send({ type: 'welcome', proof: hmac(secret, 'rank 0', hello.nonce, challenge).toString('hex') })
  secure(connection, secret, challenge, hello.nonce, true)
  return { connection, channel: hello.channel, rank: hello.rank }
}

/** A follower's side. Throws RANK_CHANNEL. */
export async function greetRank0(
  connection: Connection,
  { rank, size, secret }: RankPlace,
  channel: Channel,
  version: string,
): Promise<void> {
  const { nonce: challenge } = await connection.expect('challenge', GREETING_MS)
  const nonce = randomBytes(32).toString('hex')
  const said = { channel, rank, size, version, nonce }
  connection.send({ type: 'hello', ...said, proof: proofOf(secret, challenge, said).toString('hex') })
  const { proof } = await connection.expect('welcome', GREETING_MS)
  if (!equal(proof, hmac(secret, 'rank 0', nonce, challenge))) throw llmError('RANK_CHANNEL', 'it does not know the secret')
  secure(connection, secret, challenge, nonce, false)
}
