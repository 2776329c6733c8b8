import { RankLeader, rankFailure } from '@aphrodite/engine'
import { type EngineHost, type EngineSetup, openEngineHost } from '../engine-host.ts'
import type { CommunicatorHandle } from './communicator.ts'
import { LeaderGroup } from './group.ts'
import type { RankPlace } from './place.ts'

/** What the engine's thread of rank 0 is started with. */
export interface LeaderData {
  readonly place: RankPlace
  readonly rankTimeout: number
}

/** Rank 0's engine, in the thread that made it. */
export interface LeadingEngine {
  readonly host: EngineHost
  readonly leader: RankLeader
  /** A step has thrown: nobody is to wait for this rank. */
  died(error: unknown): void
  close(): void
}

/**
 * Opens the engine of rank 0, when those of the others have connected. onPort: where they do. Throws what goes wrong on this rank,
 * or RANK_FAILED.
 */
export async function leadEngine(
  setup: EngineSetup,
  { place, rankTimeout }: LeaderData,
  say: (message: string) => void,
  onPort: (port: number) => void,
  onCommunicator: (communicator: CommunicatorHandle) => void,
): Promise<LeadingEngine> {
  const group = await LeaderGroup.open(place, say)
  try {
    onPort(group.port)
    await group.connected()
    const host = await openEngineHost(setup, say, { group, address: place.host, secret: place.secret, rankTimeout, onCommunicator })
    return {
      host,
      leader: new RankLeader(host.core, (frame) => group.send(frame)),
      died: (error) => host.abort(rankFailure(0, error).message),
      close: () => {
        host.close()
        group.close()
      },
    }
  } catch (error) {
    group.close()
    throw error
  }
}
