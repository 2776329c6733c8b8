import { COLLECTIVE_TIMEOUT_MS, type CollectiveOps, type Communicator, didYouMean, type Tensor } from '@aphrodite/tensor'
import type { CpuDevice } from './device.ts'
import { kernelsCpuError } from './errors.ts'
import { loadNative, type Native } from './native.ts'

/** How the ranks reach each other. */
export type CpuTransport =
  /**
   * Memory that ranks on one host share. `name`: the same on every rank, of letters, digits, `.`, `_` and `-`, used once: let it
   * have random bits. Nothing of it is left when the ranks end, however they end.
   */
  | { readonly kind: 'shared'; readonly name: string }
  /**
   * Connections between all pairs of ranks. `addresses`: `host:port` of every rank, as the others reach it. `listen`: where this
   * rank waits for the others, `host:port` or what `listenForRanks` gave; the communicator closes it. `secret`: the same on every
   * rank, at least 16 characters. Both ends of a connection prove that they know it before anything else is read; what follows is
   * neither signed nor encrypted, so the network between the hosts has to be yours.
   */
  | { readonly kind: 'tcp'; readonly addresses: readonly string[]; readonly listen: string | RankListener; readonly secret: string }

export interface CpuCommunicatorOptions {
  readonly rank: number
  /** 1 … 256. */
  readonly size: number
  /** How long anything waits for another rank, the first meeting too. */
  readonly timeoutMs?: number
  readonly transport: CpuTransport
  /** Ends the first meeting with RANK_FAILED and the signal's reason. */
  readonly signal?: AbortSignal
}

const OPTIONS: readonly string[] = ['rank', 'size', 'timeoutMs', 'transport', 'signal'] satisfies (keyof CpuCommunicatorOptions)[]
const MOST_RANKS = 256
const LEAST_SECRET = 16

/** A port that waits for other ranks, before anybody knows who they are. */
export interface RankListener {
  /** Of this process, for the communicator. */
  readonly listener: number
  /** The one that the system gave where 0 was asked for. */
  readonly port: number
  /** For one that no communicator has taken. */
  close(): void
}

/** Listens at `host:port`; port 0 takes a free one, no host all of the machine's addresses. Throws CANNOT_LISTEN, BAD_OPTION. */
export function listenForRanks(address: string): RankListener {
  const native = loadNative()
  const { host, port } = readAddress('listen', address)
  const { listener, port: taken } = native.listen(host, port)
  return { listener, port: taken, close: () => native.closeListener(listener) }
}

/**
 * Meets the other ranks, which call this with the same size and transport; resolves when all are there. The collectives are ops
 * of the device: done when they return, captured by `Device.capture`, called on the JavaScript thread that made the device.
 * Rejects with RANK_FAILED when a rank does not come within the time limit, or knows another secret. Throws BAD_OPTION,
 * CANNOT_LISTEN.
 */
export async function createCpuCommunicator(device: CpuDevice, options: CpuCommunicatorOptions): Promise<CpuCommunicator> {
  const native = loadNative()
  const { rank, size, transport, signal } = options
  const timeoutMs = options.timeoutMs ?? COLLECTIVE_TIMEOUT_MS
  check(options, timeoutMs)
  const common = { rank, size, timeoutMs: Math.ceil(timeoutMs) }
  const handle =
    transport.kind === 'shared'
      ? native.createSharedCommunicator({
          ...common,
          name: transport.name,
          threads: device.threads,
          cores: native.allowedCores(),
        })
      : native.createTcpCommunicator({ ...common, ...addressesOf(transport.addresses), ...secretAndListener(transport) })
  try {
    for (let pause = 1; !native.communicatorReady(handle); pause = Math.min(pause * 2, 20)) {
      if (signal?.aborted) native.abortCommunicator(handle, String(signal.reason?.message ?? signal.reason))
      await new Promise<void>((resolve) => setTimeout(resolve, pause))
    }
  } catch (e) {
    native.closeCommunicator(handle)
    throw e
  }
  return new CpuCommunicator(native, device.collectives, handle, rank, size)
}

/**
 * `Communicator.abort` by handle, from any thread of the process: also while the communicator's own thread is blocked in a
 * collective. False when there is none of this handle any more.
 */
export const abortCommunicator = (handle: number, reason: string): boolean => loadNative().abortCommunicator(handle, reason)

/** What `createCpuCommunicator` makes. */
export class CpuCommunicator implements Communicator {
  readonly rank: number
  readonly size: number
  readonly handle: number
  readonly #native: Native
  readonly #ops: CollectiveOps

  constructor(native: Native, ops: CollectiveOps, handle: number, rank: number, size: number) {
    this.#native = native
    this.#ops = ops
    this.handle = handle
    this.rank = rank
    this.size = size
  }

  allReduce(x: Tensor): void {
    this.#ops.allReduce(this.handle, x)
  }
  allGather(out: Tensor, x: Tensor): void {
    this.#ops.allGather(this.handle, out, x)
  }
  abort(reason: string): void {
    this.#native.abortCommunicator(this.handle, reason)
  }
  close(): void {
    this.#native.closeCommunicator(this.handle)
  }
}

function check(options: CpuCommunicatorOptions, timeoutMs: number): void {
  const fail = (what: string): never => {
    throw kernelsCpuError('BAD_OPTION', `createCpuCommunicator: ${what}`)
  }
  for (const name of Object.keys(options)) if (!OPTIONS.includes(name)) fail(`there is no option "${name}".${didYouMean(name, OPTIONS)}`)
  const { rank, size, transport } = options
  if (!Number.isInteger(size) || size < 1 || size > MOST_RANKS) fail(`size is ${size}; it should be 1 … ${MOST_RANKS}.`)
  if (!Number.isInteger(rank) || rank < 0 || rank >= size) fail(`rank is ${rank}; it should be 0 … ${size - 1}.`)
  if (!(timeoutMs >= 1 && timeoutMs <= 86_400_000)) fail(`timeoutMs is ${timeoutMs}; it should be 1 … 86400000.`)
  if (transport.kind === 'shared') {
    if (!/^[\w.-]{1,200}$/.test(transport.name))
      fail(`the name "${transport.name}" should be of letters, digits, ".", "_" and "-", at most 200.`)
  } else if (transport.kind === 'tcp') {
    if (transport.addresses.length !== size) fail(`there are ${transport.addresses.length} addresses for ${size} ranks.`)
    if (transport.secret.length < LEAST_SECRET)
      fail(`the secret has ${transport.secret.length} characters; it should have at least ${LEAST_SECRET}.`)
  } else fail(`the transport is "${(transport as { kind: unknown }).kind}"; there are shared and tcp.`)
}

function secretAndListener({ listen, secret }: CpuTransport & { kind: 'tcp' }): { secret: string; listener: number } {
  return { secret, listener: (typeof listen === 'string' ? listenForRanks(listen) : listen).listener }
}

function addressesOf(addresses: readonly string[]): { hosts: string[]; ports: string[] } {
  const all = addresses.map((address) => readAddress('addresses', address))
  return { hosts: all.map((a) => a.host), ports: all.map((a) => a.port) }
}

/** `host:port`, `[::1]:port`, `:port`. */
function readAddress(what: string, address: string): { host: string; port: string } {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(address) ?? []
  if (port === undefined || Number(port) > 65_535)
    throw kernelsCpuError('BAD_OPTION', `createCpuCommunicator: ${what} has "${address}"; it should be host:port, or [host]:port for IPv6.`)
  return { host: bracketed ?? plain ?? '', port }
}
