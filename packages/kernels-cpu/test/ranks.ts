import { fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { type CpuTransport, listenForRanks, type RankListener } from '../src/index.ts'

export type Kind = 'shared' | 'tcp'

/** What communicator-rank.mjs is told. */
export interface Step {
  readonly op?: 'allReduce' | 'allGather'
  readonly dtype?: 'f32' | 'bf16' | 'f16'
  readonly rows?: number
  readonly cols?: number
  readonly stride?: number
  readonly seed?: number
  readonly repeat?: number
  readonly capture?: boolean
  /** Of each rank, before it. */
  readonly pauseMs?: readonly number[]
  /** A rank that does not do this step, in one way or another. */
  readonly kill?: number
  readonly exit?: number
  readonly close?: number
  /** What is different on a rank. */
  readonly ranks?: Readonly<Record<number, Step>>
}

export interface RankReport {
  readonly results: Float32Array[]
  readonly untouched: boolean
  readonly sums: object | undefined
  readonly error: { readonly code: string | undefined; readonly message: string } | undefined
  /** Milliseconds from the start of all. */
  readonly ended: number
}

export interface RankOptions {
  readonly steps?: readonly Step[]
  readonly sums?: number
  readonly timeoutMs?: number
  readonly threads?: number
  readonly isa?: string
  readonly processes?: boolean
  /** Called when a rank has joined, with the handle of its communicator in its process. */
  readonly joined?: (rank: number, handle: number) => void
  /** In place of the usual one. */
  readonly transport?: readonly CpuTransport[]
}

const program = fileURLToPath(new URL('communicator-rank.mjs', import.meta.url))

/**
 * Transports for `size` ranks of this machine. Threads take over listeners of this process; processes listen themselves, at ports
 * that were free a moment ago.
 */
export function transports(kind: Kind, size: number, processes = false): CpuTransport[] {
  if (kind === 'shared') {
    const name = `test-${randomBytes(8).toString('hex')}`
    return Array.from({ length: size }, () => ({ kind, name }))
  }
  const secret = randomBytes(16).toString('hex')
  const listeners = Array.from({ length: size }, () => listenForRanks('127.0.0.1:0'))
  const addresses = listeners.map(({ port }) => `127.0.0.1:${port}`)
  if (processes) for (const l of listeners) l.close()
  return listeners.map(({ listener, port }, rank) => ({
    kind,
    addresses,
    secret,
    listen: processes ? addresses[rank]! : ({ listener, port } as RankListener),
  }))
}

/** Runs ranks in worker threads, or processes, and collects what they report. */
export async function ranks(kind: Kind, size: number, options: RankOptions): Promise<RankReport[]> {
  const { joined, processes = false, transport = transports(kind, size, processes), ...told } = options
  const began = performance.now()
  const start = processes ? inProcess : inThread
  return Promise.all(
    transport.map(async (t, rank) => {
      const ran = await start({ rank, size, transport: t, ...told }, (handle) => joined?.(rank, handle))
      return reportOf(ran, performance.now() - began)
    }),
  )
}

function inThread(data: object, joined: (handle: number) => void): Promise<Ran> {
  return new Promise((resolve) => {
    const messages: Message[] = []
    const worker = new Worker(program, { workerData: data })
    worker.on('message', (m: Message) => {
      messages.push(m)
      if (m.joined !== undefined) joined(m.joined)
    })
    worker.on('error', (e) => resolve({ messages, failure: String(e) }))
    worker.on('exit', () => resolve({ messages }))
  })
}

function inProcess(data: object): Promise<Ran> {
  return new Promise((resolve) => {
    const messages: Message[] = []
    const child = fork(program, [JSON.stringify(data)], { serialization: 'advanced' })
    child.on('message', (m) => messages.push(m as Message))
    child.on('exit', (_, signal) => resolve({ messages, ...(signal && { failure: signal }) }))
  })
}

function reportOf({ messages, failure }: Ran, ended: number): RankReport {
  const told = messages.find((m) => m.message !== undefined)
  const code = told?.code
  const message = told?.message ?? failure
  return {
    results: messages.flatMap((m) => m.result ?? []),
    untouched: messages.every((m) => m.untouched !== false),
    sums: messages.find((m) => m.sums !== undefined || m.wrong !== undefined),
    error: message === undefined ? undefined : { code, message },
    ended,
  }
}

interface Message {
  readonly joined?: number
  readonly result?: Float32Array
  readonly untouched?: boolean
  readonly sums?: number
  readonly wrong?: number
  readonly code?: string
  readonly message?: string
}
interface Ran {
  readonly messages: Message[]
  readonly failure?: string
}
