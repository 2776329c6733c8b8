import { MessageChannel, type MessagePort } from 'node:worker_threads'
import { AphroditeError } from '@aphrodite/tensor'
import { lazyDevice } from '@aphrodite/testing'
import { afterEach, describe, expect, test } from 'vitest'
import {
  type ConnectedEngine,
  connectEngine,
  EngineCore,
  type EngineOutput,
  type EngineRequest,
  inProcessEngine,
  resolveSamplingParams,
  serveEngine,
} from '../src/index.ts'
import { runAlone } from './alone.ts'
import { FakeDevice } from './fake-device.ts'
import { FakeModel, type LayerKind, VOCAB } from './fake-model.ts'

const KINDS: readonly LayerKind[] = [{ window: 0 }]
const request = (id: string, params: object = {}, more: object = {}): EngineRequest => ({
  id,
  promptTokenIds: Array.from({ length: 20 }, (_, i) => (i * 3 + id.length) % VOCAB),
  params: resolveSamplingParams({ temperature: 0, maxTokens: 8, ...params }),
  ...more,
})
const alone = (r: EngineRequest, index = 0) => runAlone(r, index, KINDS, { maxModelLen: 512, eosTokenIds: [] })

interface Setup {
  engine: ConnectedEngine
  core: EngineCore
  model: FakeModel
  device: FakeDevice
  /** The front's end, and the engine's. */
  ports?: [MessagePort, MessagePort]
  /** Resolves when serveEngine has ended. */
  served?: Promise<void>
}

function makeCore(lazy = false) {
  const device = new FakeDevice()
  const model = new FakeModel(device, KINDS)
  return { device, model, core: new EngineCore({ model, device: lazy ? lazyDevice(device) : device, kvCacheBytes: 64 * 200 }) }
}
const open: ConnectedEngine[] = []
const WAYS: Record<string, () => Promise<Setup>> = {
  'in process': async () => {
    const made = makeCore()
    return { ...made, engine: inProcessEngine(made.core) }
  },
  'over a port': () => overPort(makeCore()),
  'in process, where steps overlap': async () => {
    const made = makeCore(true)
    return { ...made, engine: inProcessEngine(made.core) }
  },
  'over a port, where steps overlap': () => overPort(makeCore(true)),
}
async function overPort(made: ReturnType<typeof makeCore>): Promise<Setup> {
  const { port1, port2 } = new MessageChannel()
  const served = serveEngine(port2, made.core)
  return { ...made, engine: await connectEngine(port1), served, ports: [port1, port2] }
}
afterEach(async () => {
  for (const engine of open.splice(0)) await engine.close()
})

async function collect(stream: AsyncIterable<EngineOutput>): Promise<EngineOutput[]> {
  const outputs: EngineOutput[] = []
  for await (const output of stream) outputs.push(output)
  return outputs
}
const tokensOf = (outputs: EngineOutput[], index = 0): number[] => outputs.filter((o) => o.index === index).flatMap((o) => o.tokenIds)
const idle = async (core: EngineCore): Promise<void> => {
  while (core.hasWork) await new Promise((resolve) => setTimeout(resolve, 2))
}

describe.each(Object.keys(WAYS))('a client %s', (way) => {
  const setUp = async (): Promise<Setup> => {
    const made = await WAYS[way]!()
    open.push(made.engine)
    return made
  }

  test('streams the outputs of many requests at once', async () => {
    const { engine, core } = await setUp()
    expect(engine.ledger).toEqual(core.ledger)
    expect(engine.maxModelLen).toBe(512)
    const requests = Array.from({ length: 12 }, (_, i) =>
      request('x'.repeat(i + 1), { n: 1 + (i % 3), seed: i, temperature: i % 2, logprobs: i % 4 }),
    )
    const all = await Promise.all(requests.map((r) => collect(engine.submit(r))))
    for (const [i, r] of requests.entries()) {
      for (let index = 0; index < r.params.n; index++) expect(tokensOf(all[i]!, index)).toEqual(alone(r, index).tokenIds)
      expect(all[i]!.filter((o) => o.finishReason === 'length')).toHaveLength(r.params.n)
    }
    expect(await engine.stats()).toEqual(core.stats())
    core.assertBalanced()
  })

  test('what nobody reads is merged to one output an answer', async () => {
    const { engine, core } = await setUp()
    const r = request('a', { n: 2, seed: 1, temperature: 1, maxTokens: 50, logprobs: 1 })
    const stream = engine.submit(r)
    await collect(engine.submit(request('bb', { maxTokens: 60 })))
    await idle(core)
    await engine.stats()
    const outputs = await collect(stream)
    expect(outputs).toHaveLength(2)
    for (const output of outputs) {
      expect(output.tokenIds).toEqual(alone(r, output.index).tokenIds)
      expect(output.logprobs?.map((l) => l.tokenId)).toEqual(output.tokenIds)
      expect(output.finishReason).toBe('length')
    }
    expect(outputs[0]!.cachedTokens).toBe(0)
  })

  test('leaving the loop aborts', async () => {
    const { engine, core } = await setUp()
    for await (const output of engine.submit(request('a', { maxTokens: 400, n: 2 }))) {
      expect(output.tokenIds.length).toBeGreaterThan(0)
      break
    }
    await engine.stats()
    await idle(core)
    // Its answer comes after everything that the engine had to say before.
    await engine.stats()
    core.assertBalanced()
    expect(core.stats().generatedTokens).toBeLessThan(100)
    // The id is free again.
    expect(tokensOf(await collect(engine.submit(request('a'))))).toEqual(alone(request('a')).tokenIds)
  })

  test('abort ends the stream with a reason', async () => {
    const { engine } = await setUp()
    const stream = engine.submit(request('a', { maxTokens: 400, n: 2 }))
    await stream.next()
    engine.abort('a')
    const rest = await collect(stream)
    expect(rest.filter((o) => o.finishReason === 'abort').map((o) => o.index)).toEqual([0, 1])
  })

  test('a refused request fails alone, with its code', async () => {
    const { engine } = await setUp()
    const good = collect(engine.submit(request('good')))
    const bad = collect(engine.submit({ ...request('bad'), promptTokenIds: [VOCAB] }))
    await expect(bad).rejects.toThrow(
      expect.objectContaining({
        name: 'AphroditeError',
        code: 'BAD_REQUEST',
        message: `request "bad": prompt token 0 is ${VOCAB}; ids go from 0 to 63`,
      }),
    )
    expect(tokensOf(await good)).toEqual(alone(request('good')).tokenIds)
    expect(() => {
      engine.submit(request('same'))
      engine.submit(request('same'))
    }).toThrow('there is a request "same" already')
  })

  test('a failed step fails its requests with the cause, and the engine goes on', async () => {
    const { engine, model } = await setUp()
    model.onForward = () => {
      throw new Error('kernel panic')
    }
    await expect(collect(engine.submit(request('a')))).rejects.toThrow('a step with request "a" in it failed: kernel panic')
    model.onForward = () => {}
    expect(tokensOf(await collect(engine.submit(request('a'))))).toHaveLength(8)
  })

  test('returns logits', async () => {
    const { engine } = await setUp()
    const [output, ...more] = await collect(engine.submit(request('a', { n: 3 }, { returnLogits: true })))
    expect(more).toEqual([])
    expect(output!.logits).toHaveLength(20 * VOCAB)
    expect(output!.logits!.some((x) => x !== 0)).toBe(true)
  })

  test('drops cached prefixes', async () => {
    const { engine } = await setUp()
    await collect(engine.submit(request('a')))
    expect((await collect(engine.submit(request('a'))))[0]!.cachedTokens).toBe(16)
    await engine.resetPrefixCache()
    expect((await collect(engine.submit(request('a'))))[0]!.cachedTokens).toBe(0)
  })

  test('close fails what is pending and everything later', async () => {
    const { engine, device, served } = await setUp()
    const pending = collect(engine.submit(request('a', { maxTokens: 400 })))
    const closed = [engine.close(), engine.close()]
    await expect(pending).rejects.toThrow(expect.objectContaining({ code: 'ENGINE_CLOSED', message: 'the engine was closed' }))
    await Promise.all(closed)
    await served
    expect(device.allocated.size).toBe(0)
    expect(() => engine.submit(request('b'))).toThrow('the engine was closed')
  })

  test('fails with the reason of whoever watches the thread', async () => {
    const { engine } = await setUp()
    const pending = collect(engine.submit(request('a', { maxTokens: 400 })))
    engine.fail(new AphroditeError('ENGINE_DEAD', 'the thread ran out of memory'))
    await expect(pending).rejects.toThrow(expect.objectContaining({ code: 'ENGINE_DEAD', message: 'the thread ran out of memory' }))
    expect(() => engine.submit(request('b'))).toThrow('the thread ran out of memory')
  })
})

describe('over a port', () => {
  test('an engine that is gone fails every pending call', async () => {
    const { engine, ports, core } = await WAYS['over a port']!()
    const pending = collect(engine.submit(request('a', { maxTokens: 400 })))
    const stats = engine.stats()
    ports![1].close()
    for (const call of [pending, stats]) await expect(call).rejects.toThrow('the engine is gone: its thread ended or its port was closed')
    await engine.close()
    expect(() => core.add(request('b'))).toThrow('the engine is closed')
  })

  test('a front that is gone ends the engine and frees its memory', async () => {
    const { engine, ports, served, device } = await WAYS['over a port']!()
    engine.submit(request('a', { maxTokens: 400 }))
    await engine.stats()
    ports![0].close()
    await served
    expect(device.allocated.size).toBe(0)
  })

  test('an engine that never gets ready is an error', async () => {
    const { port1, port2 } = new MessageChannel()
    const engine = connectEngine(port1)
    port2.close()
    await expect(engine).rejects.toThrow('the engine is gone')
  })

  test('a front that does not read does not stop the engine, and gets one message then', async () => {
    const { core } = makeCore()
    const { port1, port2 } = new MessageChannel()
    const served = serveEngine(port2, core)
    const r = request('a', { maxTokens: 300 })
    const messages: { type: string; tokens?: Int32Array; outputs?: EngineOutput[] }[] = []
    port1.on('message', (message) => messages.push(message))
    port1.postMessage({ type: 'add', request: r, number: 7 })
    const events = () => messages.filter((m) => m.type === 'events')
    while (core.stats().generatedTokens < 300) await new Promise((resolve) => setTimeout(resolve, 2))
    expect(events()).toHaveLength(2)
    port1.postMessage({ type: 'seen' })
    while (events().length < 3) await new Promise((resolve) => setTimeout(resolve, 2))
    const [first, ...others] = events().map((m) => m.outputs!)
    expect([first!.length, ...others.map((outputs) => outputs.map((o) => o.finishReason))]).toEqual([1, [], ['length']])
    // Tokens with nothing to say of them are numbers: whose, of which answer, which.
    const plain = events().flatMap(({ tokens }) =>
      Array.from({ length: tokens!.length / 3 }, (_, i) => [...tokens!.subarray(i * 3, i * 3 + 3)]),
    )
    for (const [number, index] of plain) expect([number, index]).toEqual([7, 0])
    const got = [...first![0]!.tokenIds, ...plain.map(([, , token]) => token), ...others.flat().flatMap((o) => o.tokenIds)]
    expect(got).toEqual(alone(r).tokenIds)
    port1.postMessage({ type: 'close' })
    await served
  })
})
