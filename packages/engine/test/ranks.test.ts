import { lazyDevice } from '@aphrodite/testing'
import { afterEach, describe, expect, test } from 'vitest'
import {
  EngineCore,
  type EngineEvents,
  type EngineOptions,
  type EngineRequest,
  followRank0,
  inProcessEngine,
  leastSizes,
  measureEngine,
  type RankFrame,
  RankLeader,
  resolveSamplingParams,
} from '../src/index.ts'
import { FakeDevice } from './fake-device.ts'
import { FakeModel, VOCAB } from './fake-model.ts'

const request = (id: string, length: number, params: object = {}): EngineRequest => ({
  id,
  promptTokenIds: Array.from({ length }, (_, i) => (i * 5 + length) % VOCAB),
  params: resolveSamplingParams({ temperature: 0.8, maxTokens: 9, ...params }),
})

/** Frames from rank 0 to one other, as they would come over a wire. */
class Wire {
  readonly sent: RankFrame[] = []
  #wake: () => void = () => {}
  send(frame: RankFrame): void {
    this.sent.push(JSON.parse(JSON.stringify(frame)) as RankFrame)
    this.#wake()
  }
  reader(): () => Promise<RankFrame> {
    let next = 0
    return async () => {
      while (next >= this.sent.length)
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      return this.sent[next++]!
    }
  }
}

interface Rank {
  readonly core: EngineCore
  readonly device: FakeDevice
  readonly model: FakeModel
  /** What each of its steps computed. */
  readonly batches: number[][]
}
const ranks: Rank[] = []

function rank(overlap: boolean, options: Partial<EngineOptions> = {}): Rank {
  const device = new FakeDevice()
  const model = new FakeModel(device, [{ window: 0 }])
  const batches: number[][] = []
  model.onForward = (step) => batches.push([step.inputIds.size, step.attnMetadata.length])
  const init = { model, device: overlap ? lazyDevice(device) : device, kvCacheBytes: 64 * 20, maxNumSeqs: 4, seed: 7, ...options }
  const core = new EngineCore({ ...init, mirror: leastSizes([measureEngine(init)]) })
  batches.length = 0 // of the dry runs
  const made = { core, device, model, batches }
  ranks.push(made)
  return made
}

afterEach(() => {
  for (const { core, device } of ranks.splice(0)) {
    core.close()
    expect(device.allocated.size).toBe(0)
  }
})

describe.each([false, true])('ranks of one engine, where steps overlap: %s', (overlap) => {
  test('compute the same steps, whenever requests and aborts come', async () => {
    const [zero, one] = [rank(overlap), rank(overlap)]
    const wire = new Wire()
    const leader = new RankLeader(zero.core, (frame) => wire.send(frame))
    const following = followRank0(one.core, 1, wire.reader())
    const client = inProcessEngine(leader)
    const read = async (r: EngineRequest, most = Number.POSITIVE_INFINITY): Promise<number[]> => {
      const tokens: number[] = []
      for await (const { tokenIds } of client.submit(r)) {
        tokens.push(...tokenIds)
        if (tokens.length >= most) break
      }
      return tokens
    }
    const first = [read(request('a', 40)), read(request('b', 3, { n: 2 })), read(request('c', 70), 3)]
    await first[1]
    const second = [read(request('d', 40)), read(request('e', 33, { maxTokens: 20, temperature: 0 }))]
    await client.resetPrefixCache()
    const third = read(request('f', 200))
    expect((await Promise.all([...first, ...second, third])).map((tokens) => tokens.length)).toEqual([9, 18, 3, 9, 20, 9])
    await client.close()
    await following
    expect(one.batches).toEqual(zero.batches)
    expect(one.core.digest).toBe(zero.core.digest)
    expect(one.core.stats().steps).toBe(zero.core.stats().steps)
    expect(wire.sent.flatMap((f) => f.commands.map((c) => c.type)).sort()).toEqual(
      ['abort', 'add', 'add', 'add', 'add', 'add', 'add', 'close', 'resetPrefixCache'].sort(),
    )
  })

  test('a request that rank 0 refuses is not passed on', async () => {
    const [zero, one] = [rank(overlap), rank(overlap)]
    const wire = new Wire()
    const leader = new RankLeader(zero.core, (frame) => wire.send(frame))
    const following = followRank0(one.core, 1, wire.reader())
    leader.add(request('long', 5000))
    const events: EngineEvents[] = []
    while (leader.hasWork) events.push(await leader.step())
    expect(events.flatMap((e) => e.failures.map((f) => f.code))).toEqual(['SEQUENCE_TOO_LONG'])
    leader.close()
    await following
    expect(wire.sent.flatMap((f) => f.commands)).toEqual([{ type: 'close' }])
  })

  test('a rank that draws another token ends and says so', async () => {
    const [zero, one] = [rank(overlap), rank(overlap, { seed: 8 })]
    const wire = new Wire()
    const leader = new RankLeader(zero.core, (frame) => wire.send(frame))
    const following = followRank0(one.core, 1, wire.reader())
    following.catch(() => {})
    leader.add(request('a', 10, { temperature: 5 }))
    while (leader.hasWork) await leader.step()
    leader.close()
    await expect(following).rejects.toMatchObject({ code: 'RANKS_DIVERGED', message: expect.stringContaining('rank 1 has drawn') })
  })

  test('a step that fails is the end, and names the rank', async () => {
    const zero = rank(overlap)
    zero.model.onForward = () => {
      throw new Error('a kernel broke')
    }
    const client = inProcessEngine(new RankLeader(zero.core, () => {}))
    const failed = { code: 'RANK_FAILED', message: 'rank 0 failed: a kernel broke' }
    await expect(client.submit(request('a', 10)).next()).rejects.toMatchObject(failed)
    expect(() => client.submit(request('b', 10))).toThrow(failed.message)
    await client.close()

    const one = rank(overlap)
    one.model.onForward = zero.model.onForward
    const wire = new Wire()
    wire.send({ commands: [{ type: 'add', request: request('a', 10) }], digest: 0 })
    wire.send({ commands: [], digest: 0 })
    await expect(followRank0(one.core, 1, wire.reader())).rejects.toMatchObject({ message: 'rank 1 failed: a kernel broke' })
  })
})

test('ranks agree on the least that one of them can have', () => {
  const sizes = leastSizes([
    { blocks: [100, 20], maxModelLen: 1600 },
    { blocks: [90, 20], maxModelLen: 1440 },
    { blocks: [95, 18], maxModelLen: 1520 },
  ])
  expect(sizes).toEqual({ blocks: [90, 18], maxModelLen: 1440 })
})
