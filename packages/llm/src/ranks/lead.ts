import { randomBytes } from 'node:crypto'
import type { AphroditeError } from '@aphrodite/tensor'
import type { EngineSetup } from '../engine-host.ts'
import { ChildRanks } from './children.ts'
import { checkPlace, type RankPlace } from './place.ts'
import { RankListener, START_MS } from './rendezvous.ts'
import { gone, RankWatch } from './watch.ts'

/** However long a collective may take: a rank that says nothing at all is known sooner. */
const MOST_SILENCE_MS = 10_000

/** The other ranks, as the program of rank 0 sees them. */
export class Ranks {
  /** Where this rank stands, for the engine's thread. */
  readonly place: RankPlace
  readonly #listener: RankListener
  readonly #children: ChildRanks | undefined
  readonly #silence: number
  #watch: RankWatch | undefined
  /** Before there is a watch. */
  #failure: AphroditeError | undefined
  #onFailure: (error: AphroditeError) => void = () => {}
  #ending = false

  private constructor(
    place: RankPlace,
    listener: RankListener,
    launched: boolean,
    setup: EngineSetup,
    rankTimeout: number,
    print: (line: string) => void,
  ) {
    this.place = place
    this.#listener = listener
    this.#silence = Math.min(MOST_SILENCE_MS, rankTimeout * 1000)
    const exited = (rank: number, why: string) => this.fail(gone(rank, why))
    this.#children = launched ? undefined : new ChildRanks({ setup, rankTimeout }, place, exited, print)
  }

  /**
   * Starts the other ranks as processes, or where `launched` says that a launcher does, waits for them there. print: lines for
   * people. Throws BAD_RANK, RANK_CHANNEL.
   */
  static async open(
    setup: EngineSetup,
    { size, launched, rankTimeout }: { size: number; launched: RankPlace | undefined; rankTimeout: number },
    print: (line: string) => void,
  ): Promise<Ranks> {
    const wanted = checkPlace(launched ?? { rank: 0, size, host: '127.0.0.1', port: 0, secret: randomBytes(32).toString('hex') })
    const listener = await RankListener.open(wanted, 'control', print)
    return new Ranks({ ...wanted, port: listener.port }, listener, launched !== undefined, setup, rankTimeout, print)
  }

  /** Waits for all, and watches them from then on. enginePort: where rank 0's engine listens. Throws RANK_CHANNEL, RANK_FAILED. */
  async connect(enginePort: number, onFailure: (error: AphroditeError) => void): Promise<void> {
    const failed = new Promise<never>((_, reject) => {
      this.#onFailure = reject
      if (this.#failure) reject(this.#failure)
    })
    const connections = await Promise.race([this.#listener.all(START_MS), failed])
    this.#listener.close()
    this.#onFailure = onFailure
    this.#watch = new RankWatch(connections, this.#silence, (error) => {
      this.#children?.killSoon()
      this.#onFailure(error)
    })
    this.#watch.tellEngine(enginePort)
  }

  /** A rank, or rank 0 itself, cannot go on. The first reason counts. */
  fail(error: AphroditeError): void {
    if (this.#ending) return
    if (this.#watch) this.#watch.fail(error)
    else {
      this.#failure ??= error
      this.#onFailure(error)
    }
  }

  /** The engine is about to be closed, which the others are told by it. */
  expectEnd(): void {
    this.#ending = true
    this.#watch?.expectEnd()
  }

  /** Waits until processes that were started here have ended. */
  async close(): Promise<void> {
    this.expectEnd()
    this.#listener.close()
    if (this.#watch) this.#watch.close()
    else this.#children?.kill()
    await this.#children?.ended()
  }
}
