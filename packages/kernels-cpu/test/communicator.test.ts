import { createHmac, randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { Arena, type FloatDType } from '@aphrodite/tensor'
import { afterAll, describe, expect, test } from 'vitest'
import { abortCommunicator, type CpuTransport, createCpuCommunicator, createCpuDevice, listenForRanks } from '../src/index.ts'
import { type Kind, type RankReport, ranks, type Step, transports } from './ranks.ts'

const device = createCpuDevice({ threads: 1, pin: false })
const arena = new Arena(device)
afterAll(() => {
  arena.release()
  device.close()
})

/** As the storage type keeps them: conversions have tests of their own. */
function rounded(dtype: FloatDType, values: Float32Array): Float32Array {
  if (dtype === 'f32') return values
  const temporary = new Arena(device)
  const t = temporary.empty([values.length], dtype)
  device.upload(t, values)
  const kept = device.download(t) as Float32Array
  temporary.release()
  return kept
}
/** What communicator-rank.mjs starts from. */
function startOf(rank: number, { dtype = 'f32', rows = 1, cols = 1, seed = 0 }: Step): Float32Array {
  const values = new Float32Array(rows * cols)
  for (let i = 0; i < values.length; i++) values[i] = Math.sin(i * 0.37 + seed + rank * 1.7) * (rank + 1)
  return rounded(dtype, values)
}

/** Added up in float32, rank 0 first, rounded once. */
function sumOf(size: number, step: Step): Float32Array {
  const sum = startOf(0, step)
  for (let rank = 1; rank < size; rank++) {
    const part = startOf(rank, step)
    for (let i = 0; i < sum.length; i++) sum[i] = sum[i]! + part[i]!
  }
  return rounded(step.dtype ?? 'f32', sum)
}
function gatheredOf(size: number, step: Step): Float32Array {
  const { rows = 1, cols = 1 } = step
  const all = new Float32Array(rows * cols * size)
  for (let rank = 0; rank < size; rank++) {
    const part = startOf(rank, step)
    for (let r = 0; r < rows; r++) all.set(part.subarray(r * cols, (r + 1) * cols), (r * size + rank) * cols)
  }
  return all
}
const wanted = (size: number, step: Step) => (step.op === 'allGather' ? gatheredOf(size, step) : sumOf(size, step))

/** -1: they have the same bits. */
function firstDifference(a: Float32Array, b: Float32Array): number {
  for (let i = 0; i < a.length; i++) if (!Object.is(a[i], b[i])) return i
  return -1
}

function expectAll(reports: readonly RankReport[], steps: readonly Step[]): void {
  for (const { error, untouched, results } of reports) {
    expect(error).toBeUndefined()
    expect(untouched).toBe(true)
    expect(results).toHaveLength(steps.length)
  }
  for (const [i, step] of steps.entries()) {
    const want = wanted(reports.length, step)
    for (const { results } of reports) {
      expect(results[i]).toHaveLength(want.length)
      expect(firstDifference(results[i]!, want), JSON.stringify(step)).toBe(-1)
    }
  }
}
const leftOver = () => readdirSync('/dev/shm').filter((name) => name.startsWith('aphrodite-test-'))

const DTYPES = ['f32', 'bf16', 'f16'] as const
const OPS = ['allReduce', 'allGather'] as const
/** Sizes around vectors, cache lines, the ways that a sum is made, and what is exchanged at a time. */
const SHAPES = [
  [1, 1],
  [1, 17],
  [3, 31],
  [1, 2048],
  [5, 1000],
  [37, 333],
  [1, 8193],
  [3, 44_111],
] as const
const every: Step[] = OPS.flatMap((op) =>
  DTYPES.flatMap((dtype) =>
    SHAPES.flatMap(([rows, cols], seed): Step[] => [
      { op, dtype, rows, cols, seed },
      { op, dtype, rows, cols, seed, stride: cols + 9, capture: true, repeat: 2 },
    ]),
  ),
)

every.push({ op: 'allReduce', cols: 300_000 })
const small = every.filter(({ rows = 1, cols = 1 }) => rows * cols < 10_000)
const large = every.filter(({ rows = 1, cols = 1 }) => rows * cols > 5000)

describe.for(['shared', 'tcp'] as const)('%s', (kind: Kind) => {
  test.for([1, 2, 3, 4])('%i ranks: every dtype and size, strided, captured, the same bits as a sum in order', async (size) => {
    expectAll(await ranks(kind, size, { steps: every }), every)
  })

  test('ranks with threads, and instruction sets that differ', async () => {
    expectAll(await ranks(kind, 3, { steps: large, threads: 2 }), large)
    expectAll(await ranks(kind, 2, { steps: small, isa: 'portable' }), small)
  })

  test.for([2, 4])('%i ranks add up ten thousand times', async (size) => {
    const sums = kind === 'shared' ? 10_000 : 3000
    for (const report of await ranks(kind, size, { sums })) expect(report).toMatchObject({ sums: { sums }, error: undefined })
  })

  test('in processes of their own, and nothing is left behind', async () => {
    const steps: Step[] = [
      { op: 'allReduce', rows: 3, cols: 700, dtype: 'bf16' },
      { op: 'allGather', rows: 3, cols: 700 },
    ]
    expectAll(await ranks(kind, 3, { steps, processes: true }), steps)
    expect(leftOver()).toEqual([])
  })

  test('two communicators at once do not meet each other', async () => {
    const first: Step[] = Array.from({ length: 50 }, (_, seed) => ({ op: 'allReduce', cols: 500, seed }))
    const second: Step[] = Array.from({ length: 50 }, (_, seed) => ({ op: 'allGather', cols: 300, seed: seed + 1000 }))
    const both = await Promise.all([ranks(kind, 2, { steps: first }), ranks(kind, 2, { steps: second })])
    expectAll(both[0]!, first)
    expectAll(both[1]!, second)
  })

  test('a killed process is named on every rank, long before the time limit', async () => {
    const steps: Step[] = [
      { op: 'allReduce', cols: 100 },
      { op: 'allReduce', cols: 100, kill: 2 },
    ]
    const [a, b, killed] = await ranks(kind, 3, { steps, processes: true, timeoutMs: 30_000 })
    expect(killed!.error!.message).toBe('SIGKILL')
    for (const { error, ended } of [a!, b!]) {
      expect(error).toMatchObject({ code: 'RANK_FAILED', message: expect.stringMatching(/^rank 2 ended/) })
      expect(ended).toBeLessThan(15_000)
    }
    expect(leftOver()).toEqual([])
  })

  test('so are one that exits and one that closes', async () => {
    const exits: Step[] = [{ op: 'allReduce' }, { op: 'allReduce', exit: 1 }]
    for (const processes of [true, false]) {
      const [exited] = await ranks(kind, 2, { steps: exits, processes })
      expect(exited!.error).toMatchObject({ code: 'RANK_FAILED', message: expect.stringMatching(/^rank 1 (ended|closed)/) })
    }
    const closes: Step[] = [{ op: 'allReduce' }, { op: 'allReduce', close: 1 }]
    const [open, closed] = await ranks(kind, 2, { steps: closes })
    expect(open!.error).toMatchObject({ code: 'RANK_FAILED', message: 'rank 1 closed its communicator while rank 0 waits for it' })
    expect(closed!.error).toBeUndefined()
  })

  test('one that stays away is named after the time limit, on every rank, its own too when it comes', async () => {
    const steps: Step[] = [{ op: 'allReduce' }, { op: 'allGather', rows: 2, cols: 3, pauseMs: [0, 2000, 0] }]
    const reports = await ranks(kind, 3, { steps, timeoutMs: 600 })
    for (const { error, results } of reports) {
      expect(error).toEqual({ code: 'RANK_FAILED', message: 'rank 1 did not come to allGather of f32 [2, 3] within 0.6 s' })
      expect(results).toHaveLength(1)
    }
    expect(reports[0]!.ended).toBeLessThan(reports[1]!.ended)
  })

  test('an abort from another thread ends a collective that blocks, on every rank, with its reason', async () => {
    const steps: Step[] = [{ op: 'allReduce' }, { op: 'allReduce', pauseMs: [0, 0, 2000] }, { op: 'allReduce' }]
    let there = 0
    const reports = await ranks(kind, 3, {
      steps,
      timeoutMs: 60_000,
      joined: (_, handle) => {
        if (++there === 3) setTimeout(() => abortCommunicator(handle, 'rank 2 ended with status 137'), 500)
      },
    })
    for (const { error, results } of reports) {
      expect(error).toEqual({ code: 'RANK_FAILED', message: 'rank 2 ended with status 137' })
      expect(results).toHaveLength(1)
    }
    expect(reports[0]!.ended).toBeLessThan(reports[2]!.ended)
  })

  test('ranks that call different things are told which', async () => {
    const steps: Step[] = [{ op: 'allReduce', cols: 8, dtype: 'f32', ranks: { 1: { cols: 9, dtype: 'bf16' } } }]
    const reports = await ranks(kind, 2, { steps })
    const either = /rank \d calls allReduce of (f32 \[1, 8\]|bf16 \[1, 9\]) where rank \d calls allReduce of (bf16 \[1, 9\]|f32 \[1, 8\])/
    for (const { error } of reports) expect(error).toMatchObject({ code: 'RANK_FAILED', message: expect.stringMatching(either) })
  })

  test('a rank that never comes to the meeting is named; a signal ends it early', async () => {
    const [transport] = transports(kind, 3)
    const meeting = createCpuCommunicator(device, { rank: 0, size: 3, transport: transport!, timeoutMs: 300 })
    await expect(meeting).rejects.toMatchObject({ code: 'RANK_FAILED', message: expect.stringMatching(/^ranks 1 and 2 did not come/) })
    const [again] = transports(kind, 3)
    const signal = AbortSignal.timeout(200)
    const aborted = createCpuCommunicator(device, { rank: 0, size: 3, transport: again!, timeoutMs: 60_000, signal })
    await expect(aborted).rejects.toMatchObject({ code: 'RANK_FAILED', message: expect.stringMatching(/timeout/) })
    expect(leftOver()).toEqual([])
  })

  test('after a close or an abort every call throws', async () => {
    const x = arena.empty([1, 8], 'f32')
    const tp = await createCpuCommunicator(device, { rank: 0, size: 1, transport: transports(kind, 1)[0]! })
    tp.allReduce(x)
    const graph = device.capture(() => tp.allReduce(x))
    tp.abort('the first reason')
    tp.abort('the second')
    expect(() => tp.allReduce(x)).toThrow('the first reason')
    expect(() => graph.replay()).toThrow('the first reason')
    tp.close()
    tp.close()
    expect(() => tp.allReduce(x)).toThrow(expect.objectContaining({ code: 'RANK_FAILED' }))
    expect(abortCommunicator(tp.handle, 'no')).toBe(false)
    graph.release()
  })
})

describe('what is asked for', () => {
  const shared: CpuTransport = { kind: 'shared', name: 'test-x' }
  const make = (options: object) => createCpuCommunicator(device, { rank: 0, size: 1, transport: shared, ...options } as never)
  test.for([
    [{ rank: 2, size: 2 }, /rank is 2; it should be 0 … 1/],
    [{ size: 0 }, /size is 0/],
    [{ size: 1000 }, /size is 1000; it should be 1 … 256/],
    [{ timeoutMs: 0 }, /timeoutMs is 0/],
    [{ timeout: 3 }, /no option "timeout"\. Did you mean "timeoutMs"/],
    [{ transport: { kind: 'shared', name: '../x' } }, /name "\.\.\/x" should be/],
    [{ transport: { kind: 'tcp', addresses: [], listen: ':0', secret: 'x'.repeat(16) } }, /0 addresses for 1 ranks/],
    [{ transport: { kind: 'tcp', addresses: ['h:1'], listen: ':0', secret: 'short' } }, /secret has 5 characters/],
    [{ transport: { kind: 'tcp', addresses: ['h'], listen: ':0', secret: 'x'.repeat(16) } }, /addresses has "h"; it should be host:port/],
    [{ transport: { kind: 'smoke' } }, /the transport is "smoke"; there are shared and tcp/],
  ] as const)('%j', async ([options, message]) => {
    await expect(make(options)).rejects.toMatchObject({ code: 'BAD_OPTION', message: expect.stringMatching(message) })
  })
  test('a tensor that does not fit', async () => {
    const tp = await make({ transport: { kind: 'shared', name: `test-${randomBytes(8).toString('hex')}` } })
    const x = arena.empty([2, 3], 'f32')
    expect(() => tp.allGather(arena.empty([2, 4], 'f32'), x)).toThrow(/out should be \[rows, size · n\]/)
    expect(() => tp.allGather(arena.empty([2, 3], 'bf16'), x)).toThrow(/one dtype/)
    expect(() => tp.allReduce(arena.empty([2], 'i32'))).toThrow(/should be f32, f16 or bf16/)
    tp.close()
  })
  test('a port that is taken, an address of somebody else', () => {
    const { port, close } = listenForRanks('127.0.0.1:0')
    expect(() => listenForRanks(`127.0.0.1:${port}`)).toThrow(expect.objectContaining({ code: 'CANNOT_LISTEN' }))
    expect(() => listenForRanks('192.0.2.1:0')).toThrow(expect.objectContaining({ code: 'CANNOT_LISTEN' }))
    close()
  })
  test('a name that is used already', async () => {
    const [transport] = transports('shared', 2)
    const first = createCpuCommunicator(device, { rank: 0, size: 2, transport: transport!, timeoutMs: 1000 })
    const second = createCpuCommunicator(device, { rank: 0, size: 2, transport: transport!, timeoutMs: 1000 })
    const all = await Promise.allSettled([first, second])
    expect(all.map((r) => (r as PromiseRejectedResult).reason.message).some((m) => /there already: a name serves once/.test(m))).toBe(true)
    expect(leftOver()).toEqual([])
  })
})

describe('who connects', () => {
  const steps: Step[] = [{ op: 'allReduce', cols: 100 }]

  test('a rank with another secret gets nowhere, and is told so', async () => {
    const transport = transports('tcp', 2).map((t, rank) => ({ ...t, secret: `${rank}`.repeat(32) }) as CpuTransport)
    const [acceptor, connector] = await ranks('tcp', 2, { steps, transport, timeoutMs: 1000 })
    expect(connector!.error).toMatchObject({ code: 'RANK_FAILED', message: expect.stringMatching(/does not know the secret of this run/) })
    expect(acceptor!.error).toMatchObject({
      code: 'RANK_FAILED',
      message: expect.stringMatching(/^rank 1 did not come .*a connection from 127\.0\.0\.1 ended its handshake: has it the same secret/),
    })
  })

  /** What the acceptor reads of a connector: magic, byte order, rank, size, channel, nonce. */
  function hello(rank: number, size: number, channel: number): Buffer {
    const b = Buffer.alloc(56)
    b.write('aphrtp1\n')
    for (const [i, v] of [0x01020304, rank, size, channel].entries()) b.writeUInt32LE(v, 8 + 4 * i)
    randomBytes(32).copy(b, 24)
    return b
  }
  /** Sends bytes to the port and gives what comes back until the other end closes. */
  async function send(port: number, bytes: Buffer, answer?: (reply: Buffer) => Buffer): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const parts: Buffer[] = []
      const socket = connect(port, '127.0.0.1', () => socket.write(bytes))
      socket.on('data', (d) => {
        parts.push(d)
        if (answer && Buffer.concat(parts).length === 72) socket.write(answer(Buffer.concat(parts)))
      })
      socket.on('close', () => resolve(Buffer.concat(parts)))
      socket.on('error', (e: NodeJS.ErrnoException) => (e.code === 'ECONNRESET' || e.code === 'EPIPE' ? undefined : reject(e)))
    })
  }
  const portOf = (t: CpuTransport) => Number((t.kind === 'tcp' ? t.addresses[0]! : '').split(':')[1])

  test('garbage, endless bytes, strangers and silent connections keep nobody from meeting', async () => {
    const transport = transports('tcp', 2)
    const port = portOf(transport[0]!)
    const silent = Array.from({ length: 100 }, () => connect(port, '127.0.0.1').on('error', () => {}))
    const started = ranks('tcp', 2, { steps, transport: transport.slice(0, 1).concat(transport[1]!), timeoutMs: 15_000 })
    const strangers = [
      send(port, Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'.padEnd(60))),
      send(port, randomBytes(1 << 20)),
      send(port, hello(7, 2, 0)), // no such rank
      send(port, hello(0, 2, 0)), // the acceptor's own
      send(port, hello(1, 2, 9)), // no such channel
      send(port, hello(1, 2, 0), () => randomBytes(32)), // has not the secret
    ]
    expectAll(await started, steps)
    const answers = await Promise.all(strangers)
    // Nobody who has not shown the secret gets more than the acceptor's own proof.
    for (const a of answers) expect([0, 72]).toContain(a.length)
    for (const s of silent) s.destroy()
  })

  test('the proofs are HMACs of both hellos; another number of ranks, or a rank that is there, is refused after them', async () => {
    const [transport] = transports('tcp', 2)
    if (transport!.kind !== 'tcp') throw new Error('tcp')
    const { secret } = transport!
    const port = portOf(transport!)
    const meeting = createCpuCommunicator(device, { rank: 0, size: 2, transport: transport!, timeoutMs: 2000 })
    const mac = (role: string, h: Buffer, reply: Buffer) =>
      createHmac('sha256', secret).update(role).update(h).update(reply.subarray(0, 40)).digest()
    const talk = async (rank: number, size: number, channel: number) => {
      const h = hello(rank, size, channel)
      let proven = false
      const bytes = await send(port, h, (reply) => {
        proven = reply.subarray(40).equals(mac('acceptor', h, reply))
        return mac('connector', h, reply)
      })
      return { proven, welcome: bytes[72] }
    }
    expect(await talk(1, 3, 0)).toEqual({ proven: true, welcome: 2 })
    const held = talk(1, 2, 0) // stays open: a rank's first connection
    await sleep(100)
    expect(await talk(1, 2, 0)).toEqual({ proven: true, welcome: 3 })
    await expect(meeting).rejects.toMatchObject({ code: 'RANK_FAILED' })
    expect(await held).toEqual({ proven: true, welcome: 1 })
  })
})
