import { parentPort, workerData } from 'node:worker_threads'
import { followRank0, rankFailure } from '@aphrodite/engine'
import { registerOnlyHere } from '@aphrodite/models'
import { type EngineHost, type EngineSetup, openEngineHost } from '../engine-host.ts'
import type { CommunicatorHandle } from './communicator.ts'
import { FollowerGroup } from './group.ts'
import type { RankPlace } from './place.ts'

/** What the engine's thread of a rank other than 0 is started with. */
export interface FollowerData {
  /** With the port of rank 0's engine. */
  readonly place: RankPlace
  readonly setup: EngineSetup
  readonly rankTimeout: number
}

export type FollowerReport =
  | { readonly type: 'communicator'; readonly communicator: CommunicatorHandle }
  | { readonly type: 'failed'; readonly code: string; readonly reason: string }
  | { readonly type: 'done' }

const { place, setup, rankTimeout } = workerData as FollowerData
const port = parentPort!
const report = (message: FollowerReport): void => port.postMessage(message)
// Whoever started this has given up; what is under way has been broken off already.
port.once('message', () => process.exit())

registerOnlyHere()
let group: FollowerGroup | undefined
let host: EngineHost | undefined
try {
  group = await FollowerGroup.open(place)
  const { address } = group
  host = await openEngineHost(setup, () => {}, {
    group,
    address,
    secret: place.secret,
    rankTimeout,
    onCommunicator: (communicator) => report({ type: 'communicator', communicator }),
  })
  const { core } = host
  const from = group
  await followRank0(core, place.rank, () => from.next())
  core.close()
  host.close()
  report({ type: 'done' })
} catch (error) {
  const { code, message } = rankFailure(place.rank, error)
  host?.abort(message)
  report({ type: 'failed', code, reason: message })
}
group?.close()
port.close()
