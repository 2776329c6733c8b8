import { Worker } from 'node:worker_threads'
import { AphroditeError, tensorError } from '@aphrodite/tensor'
import type { EngineSetup } from '../engine-host.ts'
import { abortCommunicator, type CommunicatorHandle } from './communicator.ts'
import type { FollowerData, FollowerReport } from './follower-thread.ts'
import type { RankPlace } from './place.ts'
import { joinRank0 } from './rendezvous.ts'

/** How long the engine's thread may take to end when it is told to. */
const THREAD_MS = 4000

/** How a rank other than 0 has ended. */
export interface Followed {
  /** Absent when rank 0 ended as it should. */
  readonly error?: Error
  /** A thread is still in a kernel, and `process.exit` would wait for it. */
  readonly stuck: boolean
}

/**
 * Runs a rank other than 0 until rank 0 ends, or one of them fails. This thread stays free, so that it answers rank 0 and can
 * break a collective off. left: settles when this rank should leave for another reason.
 */
export async function follow(
  place: RankPlace,
  setup: EngineSetup,
  rankTimeout: number,
  left: Promise<string> = new Promise(() => {}),
): Promise<Followed> {
  const control = await joinRank0(place, 'control')
  let worker: Worker | undefined
  let exited: Promise<void> = Promise.resolve()
  let communicator: CommunicatorHandle | undefined
  const error = await new Promise<Error | undefined>((resolve) => {
    const fail = (code: string, reason: string) => resolve(new AphroditeError(code, reason))
    const start = (port: number) => {
      const workerData: FollowerData = { place: { ...place, port }, setup, rankTimeout }
      worker = new Worker(new URL('./follower-thread.js', import.meta.url), { workerData, name: `aphrodite-rank-${place.rank}` })
      const thread = worker
      exited = new Promise((done) => thread.once('exit', () => done()))
      thread.on('message', (report: FollowerReport) => {
        if (report.type === 'communicator') communicator = report.communicator
        else if (report.type === 'done') resolve(undefined)
        else {
          control.send({ type: 'failed', code: report.code, reason: report.reason.slice(0, 10_000) })
          fail(report.code, report.reason)
        }
      })
      const died = (why: string) => {
        const reason = `rank ${place.rank} failed: its engine's thread ended${why}`
        control.send({ type: 'failed', code: 'RANK_FAILED', reason })
        fail('RANK_FAILED', reason)
      }
      thread.once('error', (cause) => died(`: ${cause instanceof Error ? cause.message : String(cause)}`))
      thread.once('exit', () => died(''))
    }
    control.listen(
      (message) => {
        if (message.type === 'ping') control.send({ type: 'pong' })
        else if (message.type === 'failed') fail(message.code, message.reason)
        else if (message.type === 'end') resolve(undefined)
        else if (message.type === 'engine' && !worker) start(message.port)
      },
      (cause) => resolve(tensorError('RANK_FAILED', `rank 0 is gone: ${cause.message}`)),
    )
    void left.then((why) => resolve(tensorError('RANK_FAILED', why)))
  })
  if (error && communicator) abortCommunicator(communicator, error.message)
  if (error) worker?.postMessage('stop')
  const stuck = await Promise.race([exited.then(() => false), new Promise<true>((late) => setTimeout(late, THREAD_MS, true).unref())])
  control.close()
  return { ...(error && { error }), stuck }
}
