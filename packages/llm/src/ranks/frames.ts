import type { RankFrame } from '@aphrodite/engine'

/** Everything that ranks say to each other. Plain data: numbers, texts, lists. */
export type Message =
  /** Rank 0, first: prove that you know the secret. */
  | { readonly type: 'challenge'; readonly nonce: string }
  | {
      readonly type: 'hello'
      readonly channel: Channel
      readonly rank: number
      readonly size: number
      readonly version: string
      readonly nonce: string
      readonly proof: string
    }
  /** Rank 0 knows it too. */
  | { readonly type: 'welcome'; readonly proof: string }
  /** Why rank 0 does not want this one. */
  | { readonly type: 'refused'; readonly reason: string }
  /** On the control channel: where the engine's thread of rank 0 listens. */
  | { readonly type: 'engine'; readonly port: number }
  | { readonly type: 'ping' }
  | { readonly type: 'pong' }
  /** A rank cannot go on, and so nobody can. */
  | { readonly type: 'failed'; readonly code: string; readonly reason: string }
  /** Rank 0 has ended as it should. */
  | { readonly type: 'end' }
  /** On the engine's channel: what a rank brings to an exchange, and what all have brought. */
  | { readonly type: 'offer'; readonly topic: string; readonly value: unknown }
  | { readonly type: 'offers'; readonly topic: string; readonly values: readonly unknown[] }
  | ({ readonly type: 'step' } & RankFrame)

export type Channel = 'control' | 'engine'
export type MessageOf<T extends Message['type']> = Extract<Message, { type: T }>

type Check = (value: unknown) => boolean
export const record = (fields: Readonly<Record<string, Check>>): Check => {
  const names = Object.keys(fields)
  return (v) =>
    typeof v === 'object' &&
    v !== null &&
    !Array.isArray(v) &&
    Object.keys(v).every((name) => Object.hasOwn(fields, name)) &&
    names.every((name) => fields[name]!((v as Record<string, unknown>)[name]))
}
export const text =
  (most: number): Check =>
  (v) =>
    typeof v === 'string' && v.length <= most
export const count =
  (most: number): Check =>
  (v) =>
    Number.isSafeInteger(v) && (v as number) >= 0 && (v as number) <= most
export const list =
  (of: Check, most: number): Check =>
  (v) =>
    Array.isArray(v) && v.length <= most && v.every(of)
const one =
  (...values: readonly string[]): Check =>
  (v) =>
    values.includes(v as string)
const hex = (bytes: number): Check => {
  const pattern = new RegExp(`^[0-9a-f]{${bytes * 2}}$`)
  return (v) => typeof v === 'string' && pattern.test(v)
}
const object: Check = (v) => typeof v === 'object' && v !== null && !Array.isArray(v)

/** What is inside a request is checked by the engine, as it is where it comes from a client. */
const COMMANDS: Readonly<Record<string, Check>> = {
  add: record({ type: one('add'), request: object }),
  abort: record({ type: one('abort'), requestId: text(10_000) }),
  resetPrefixCache: record({ type: one('resetPrefixCache') }),
  close: record({ type: one('close') }),
}
const command: Check = (v) => {
  const type = object(v) ? (v as { type?: unknown }).type : undefined
  return typeof type === 'string' && Object.hasOwn(COMMANDS, type) && COMMANDS[type]!(v)
}

const MESSAGES: Readonly<Record<Message['type'], Check>> = {
  challenge: record({ type: one('challenge'), nonce: hex(32) }),
  hello: record({
    type: one('hello'),
    channel: one('control', 'engine'),
    rank: count(1023),
    size: count(1024),
    version: text(64),
    nonce: hex(32),
    proof: hex(32),
  }),
  welcome: record({ type: one('welcome'), proof: hex(32) }),
  refused: record({ type: one('refused'), reason: text(1000) }),
  engine: record({ type: one('engine'), port: count(65535) }),
  ping: record({ type: one('ping') }),
  pong: record({ type: one('pong') }),
  failed: record({ type: one('failed'), code: text(64), reason: text(10_000) }),
  end: record({ type: one('end') }),
  offer: record({ type: one('offer'), topic: text(64), value: () => true }),
  offers: record({ type: one('offers'), topic: text(64), values: list(() => true, 1024) }),
  step: record({ type: one('step'), commands: list(command, 1 << 20), digest: count(0xffffffff) }),
}

/** A message out of its bytes; undefined for anything that is none. What an `offer` holds is checked by whoever asked for it. */
export function readMessage(bytes: Uint8Array): Message | undefined {
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'))
  } catch {
    return undefined
  }
  const type = object(value) ? (value as { type?: unknown }).type : undefined
  if (typeof type !== 'string' || !Object.hasOwn(MESSAGES, type)) return undefined
  return MESSAGES[type as Message['type']](value) ? (value as Message) : undefined
}
