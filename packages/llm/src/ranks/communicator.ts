import { createHash, randomBytes } from 'node:crypto'
import { abortCommunicator as abortCpu, type CpuTransport, createCpuCommunicator, listenForRanks } from '@aphrodite/kernels-cpu'
import { abortCommunicator as abortNccl, createNcclCommunicator, createNcclId } from '@aphrodite/kernels-cuda'
import { type Communicator, type Device, singleRank, type Tensor } from '@aphrodite/tensor'
import type { OpenedDevice } from '../devices.ts'
import type { HostRanks } from '../engine-host.ts'
import { llmError } from '../errors.ts'
import { exchangeText, type Meeting } from './agreement.ts'

/** Names a communicator of this process to all of its threads. */
export interface CommunicatorHandle {
  readonly kind: OpenedDevice['kind']
  readonly handle: number
}

/**
 * What the ranks' devices reduce by: on the CPU shared memory where all see the same, and connections elsewhere; on GPUs NCCL.
 * Throws BAD_RANK, RANK_FAILED.
 */
export async function openCommunicator(device: OpenedDevice, ranks: HostRanks, meeting: Meeting): Promise<Communicator> {
  const { group, rankTimeout } = ranks
  const kinds = await exchangeText(group, 'device', device.kind)
  const other = kinds.findIndex((kind) => kind !== kinds[0])
  if (other > 0)
    throw llmError('BAD_RANK', `rank ${other} computes on ${kinds[other]}, rank 0 on ${kinds[0]}: name one with --device on every rank`)
  const common = { rank: group.rank, size: group.size, timeoutMs: rankTimeout * 1000 }
  if (device.kind === 'cuda') {
    const [id] = await exchangeText(group, 'nccl', group.rank === 0 ? Buffer.from(createNcclId()).toString('hex') : '')
    return new OwnTensors(device, await createNcclCommunicator(device, { ...common, id: Uint8Array.from(Buffer.from(id!, 'hex')) }))
  }
  const transport = meeting.sharedMemory ? await sharedMemory(ranks) : await connections(ranks)
  return new OwnTensors(device, await createCpuCommunicator(device, { ...common, transport }))
}

/** From any thread: whoever is in a collective, or comes to one, on every rank, gets RANK_FAILED with this reason. */
export function abortCommunicator({ kind, handle }: CommunicatorHandle, reason: string): void {
  if (kind === 'cuda') abortNccl(handle, reason)
  else abortCpu(handle, reason)
}

/** Rank 0 of so many, where nothing is computed: what it would hold. */
export const rankToMeasure = (size: number): Communicator => ({ ...singleRank, size })

async function sharedMemory({ group }: HostRanks): Promise<CpuTransport> {
  const [name] = await exchangeText(group, 'shared memory', group.rank === 0 ? `aphrodite-${randomBytes(12).toString('hex')}` : '')
  return { kind: 'shared', name: name! }
}

async function connections({ group, address, secret }: HostRanks): Promise<CpuTransport> {
  const listen = listenForRanks(':0')
  try {
    const host = address.includes(':') ? `[${address}]` : address
    const addresses = await exchangeText(group, 'addresses', `${host}:${listen.port}`)
    // The same on every rank, and of no use to whoever hears it for the connections that it is not for.
    return { kind: 'tcp', addresses, listen, secret: createHash('sha256').update(`collectives ${secret}`).digest('hex') }
  } catch (error) {
    listen.close()
    throw error
  }
}

/** Leaves tensors alone that are of no memory: a model that is run to be measured exchanges nothing. */
class OwnTensors implements Communicator {
  readonly rank: number
  readonly size: number
  readonly handle: number
  readonly #device: Device
  readonly #inner: Communicator

  constructor(device: Device, inner: Communicator) {
    this.rank = inner.rank
    this.size = inner.size
    this.handle = inner.handle
    this.#device = device
    this.#inner = inner
  }

  allReduce(x: Tensor): void {
    if (x.device === this.#device) this.#inner.allReduce(x)
  }
  allGather(out: Tensor, x: Tensor): void {
    if (x.device === this.#device) this.#inner.allGather(out, x)
  }
  abort(reason: string): void {
    this.#inner.abort(reason)
  }
  close(): void {
    this.#inner.close()
  }
}
