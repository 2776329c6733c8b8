import { connect, createServer, type Socket } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { Connection } from '../src/ranks/connection.ts'
import { type Message, readMessage } from '../src/ranks/frames.ts'
import { greetRank0 } from '../src/ranks/handshake.ts'
import type { RankPlace } from '../src/ranks/place.ts'
import { joinRank0, RankListener } from '../src/ranks/rendezvous.ts'
import { RankWatch } from '../src/ranks/watch.ts'

const place = (rank: number, more: Partial<RankPlace> = {}): RankPlace => ({
  rank,
  size: 3,
  host: '127.0.0.1',
  port: 0,
  secret: 'a secret',
  ...more,
})
const open: { close?: () => void; destroy?: () => void }[] = []
afterEach(() => {
  for (const each of open.splice(0)) (each.destroy ?? each.close)?.call(each)
})

async function listen(): Promise<{ listener: RankListener; warnings: string[]; port: number }> {
  const warnings: string[] = []
  const listener = await RankListener.open(place(0), 'control', (message) => warnings.push(message))
  open.push(listener)
  return { listener, warnings, port: listener.port }
}
async function join(rank: number, port: number, more: Partial<RankPlace> = {}): Promise<Connection> {
  const connection = await joinRank0(place(rank, { port, ...more }), 'control', 2000)
  open.push(connection)
  return connection
}
const raw = (port: number): Promise<Socket> =>
  new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' }, () => resolve(socket))
    socket.on('error', () => {})
    open.push(socket)
  })
const closed = (socket: Socket): Promise<void> => new Promise((resolve) => socket.resume().once('close', () => resolve()))

describe('ranks meet', () => {
  test('in whatever order they come, and talk both ways', async () => {
    const { listener, port } = await listen()
    const all = listener.all(2000)
    const [two, one] = [await join(2, port), await join(1, port)]
    const [first, second] = await all
    open.push(first!, second!)
    first!.send({ type: 'engine', port: 7 })
    second!.send({ type: 'engine', port: 8 })
    expect(await one.next()).toEqual({ type: 'engine', port: 7 })
    expect(await two.next()).toEqual({ type: 'engine', port: 8 })
    two.send({ type: 'failed', code: 'X', reason: 'y'.repeat(9000) }) // longer than anything may be before the greeting
    expect(await second!.next()).toMatchObject({ type: 'failed' })
  })

  test('a rank that starts before rank 0 waits for it', async () => {
    const port = await new Promise<number>((resolve) => {
      const server = createServer().listen(0, '127.0.0.1', () => {
        const { port } = server.address() as { port: number }
        server.close(() => resolve(port))
      })
    })
    const joining = join(1, port)
    await new Promise((resolve) => setTimeout(resolve, 150))
    const listener = await RankListener.open(place(0, { port, size: 3 }), 'control', () => {})
    open.push(listener)
    await joining
  })

  test('those that do not come are named', async () => {
    const { listener, port } = await listen()
    await join(1, port)
    await expect(listener.all(100)).rejects.toThrow('rank 2 of 3 did not connect to rank 0 within 0.1 s')
  })
})

describe('who does not belong here is kept out', () => {
  test('another secret', async () => {
    const { warnings, port } = await listen()
    await expect(join(1, port, { secret: 'another' })).rejects.toThrow(/rank 1 could not join rank 0 .*the secret is not the one of rank 0/)
    expect(warnings).toEqual([expect.stringMatching(/^a connection from 127\.0\.0\.1 was dropped: the secret/)])
  })

  test('a rank 0 that does not know the secret', async () => {
    const server = createServer((socket) => {
      const connection = new Connection(socket)
      connection.send({ type: 'challenge', nonce: '0'.repeat(64) })
      void connection.next().then(() => connection.send({ type: 'welcome', proof: '0'.repeat(64) }))
      open.push(connection)
    })
    const port = await new Promise<number>((resolve) =>
      server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port)),
    )
    open.push(server)
    await expect(join(1, port)).rejects.toThrow('it does not know the secret')
  })

  test('another number of ranks, a place that is taken, another version', async () => {
    const { port } = await listen()
    await expect(join(1, port, { size: 2 })).rejects.toThrow('rank 1 is one of 2 ranks, rank 0 one of 3')
    await join(1, port)
    const again = await join(1, port)
    await expect(again.next()).rejects.toThrow()
    const other = new Connection(await raw(port))
    await expect(greetRank0(other, place(2), 'control', '0.0.0')).rejects.toThrow(/rank 2 has version 0\.0\.0 of Aphrodite, rank 0 has/)
  })

  test.each<[string, Buffer]>([
    ['a web browser', Buffer.from('GET / HTTP/1.1\r\nhost: a\r\n\r\n')],
    ['a length beyond all limits', Buffer.from([0xff, 0xff, 0xff, 0xff])],
    ['no JSON', Buffer.from([0, 0, 0, 2, 0x7b, 0x7b])],
    ['a message before the greeting', frame({ type: 'step', commands: [], digest: 0 })],
    ['a flood', Buffer.alloc(1 << 20)],
  ])('%s', async (_, bytes) => {
    const { listener, warnings, port } = await listen()
    const socket = await raw(port)
    const ends = closed(socket)
    socket.write(bytes)
    await ends
    expect(warnings).toHaveLength(1)
    // and it is still there for ranks
    const all = listener.all(2000)
    open.push(...(await Promise.all([join(1, port), join(2, port)])), ...(await all))
  })

  test('a message that was changed on its way', async () => {
    const { listener, port } = await listen()
    // Somebody in the middle, who passes on everything and adds a message of his own.
    const middle = createServer((socket) => {
      const onwards = connect({ port, host: '127.0.0.1' })
      socket.pipe(onwards)
      onwards.on('data', (chunk) => {
        socket.write(chunk)
        if (readMessage(chunk.subarray(4))?.type === 'welcome') socket.write(frame({ type: 'engine', port: 1 }))
      })
      for (const each of [socket, onwards]) open.push(each.on('error', () => {}))
    })
    open.push(middle)
    const at = await new Promise<number>((resolve) =>
      middle.listen(0, '127.0.0.1', () => resolve((middle.address() as { port: number }).port)),
    )
    const one = await join(1, at)
    listener.close()
    await expect(one.next()).rejects.toThrow('a message was not from the other end, or was changed on its way')
  })
})

test.each<[string, unknown]>([
  ['a field too many', { type: 'ping', more: 1 }],
  ['a field too few', { type: 'failed', code: 'X' }],
  ['another type of field', { type: 'engine', port: '7' }],
  ['an unknown message', { type: 'eval', code: '1' }],
  ['an unknown command', { type: 'step', digest: 0, commands: [{ type: 'import', module: 'x' }] }],
  ['a name of every object', { type: 'constructor' }],
  ['a list', [{ type: 'ping' }]],
])('is no message: %s', (_, value) => expect(readMessage(Buffer.from(JSON.stringify(value)))).toBeUndefined())

describe('rank 0 watches the others', () => {
  test('one that does not answer, or has gone, is named, and the rest are told', async () => {
    const { listener, port } = await listen()
    const all = listener.all(2000)
    const [one, two] = [await join(1, port), await join(2, port)]
    const failures: Error[] = []
    const watch = new RankWatch(await all, 700, (error) => failures.push(error))
    const heard: Message[] = []
    one.listen(
      (message) => {
        heard.push(message)
        if (message.type === 'ping') one.send({ type: 'pong' })
      },
      () => {},
    )
    await expect.poll(() => failures, { timeout: 4000 }).toHaveLength(1) // two listens to nothing
    expect(failures[0]).toMatchObject({
      code: 'RANK_FAILED',
      message: expect.stringMatching(/^rank 2 is gone: it has not answered for 0\.7 s/),
    })
    await expect.poll(() => heard.at(-1)?.type).toBe('failed')
    two.destroy()
    watch.close()
    expect(failures).toHaveLength(1)
  })
})

function frame(message: Message): Buffer {
  const body = Buffer.from(JSON.stringify(message))
  const head = Buffer.alloc(4)
  head.writeUInt32BE(body.length)
  return Buffer.concat([head, body])
}
