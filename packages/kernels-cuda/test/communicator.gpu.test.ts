import { execFile, execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Arena, type FloatDType, type PackedWeight, type Tensor } from '@aphrodite/tensor'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { type CudaDevice, createCudaDevice, createNcclCommunicator, createNcclId, type NcclCommunicator } from '../src/index.ts'
import { describeOnCuda } from './on-cuda.ts'

const run = promisify(execFile)
const sines = (n: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(i))

describeOnCuda('one rank through NCCL', () => {
  let device: CudaDevice
  let arena: Arena
  let tp: NcclCommunicator
  beforeAll(() => {
    device = createCudaDevice()
  })
  afterAll(() => device.close())
  beforeEach(async () => {
    arena = new Arena(device)
    tp = await createNcclCommunicator(device, { rank: 0, size: 1, id: createNcclId() })
  })
  afterEach(() => {
    tp.close()
    arena.release()
  })

  test.for(['f32', 'bf16', 'f16'] as const)('sums and gathers %s, strided and many rows', (dtype: FloatDType) => {
    const wide = arena.empty([5, 48], dtype)
    const x = wide.narrow(1, 8, 24)
    device.upload(wide, sines(240))
    const before = device.download(wide)
    tp.allReduce(x)
    expect(device.download(wide)).toEqual(before)
    const out = arena.empty([5, 24], dtype)
    tp.allGather(out, x)
    expect(device.download(out)).toEqual(device.download(x))
  })

  const step = (out: Tensor, residual: Tensor, x: Tensor, y: Tensor, weight: PackedWeight, norm: Tensor) => () => {
    device.kernels.linear(y, x, weight)
    tp.allReduce(y)
    device.kernels.addRmsNorm(x, residual, y, norm, 1e-5, 0)
    device.kernels.linear(out, x, weight)
  }

  test('is captured between products and norms, and replayed with what the memory holds then', () => {
    const n = 256
    const weight = arena.packed(n, n, 'bf16')
    device.pack(weight, { bytes: new Uint8Array(sines(n * n).buffer), dtype: 'f32', shape: [n, n], strides: [n, 1] }, 0, 0)
    const norm = arena.empty([n], 'bf16')
    const [x, y, residual, out] = Array.from({ length: 4 }, () => arena.empty([4, n], 'bf16')) as [Tensor, Tensor, Tensor, Tensor]
    device.upload(norm, new Float32Array(n).fill(0.5))
    const enqueue = step(out, residual, x, y, weight, norm)
    const start = (scale: number) => {
      device.upload(
        x,
        sines(4 * n).map((v) => v * scale),
      )
      device.upload(residual, sines(4 * n))
    }
    const graph = device.capture(enqueue)
    for (const scale of [1, -0.25]) {
      start(scale)
      enqueue()
      const want = device.download(out) as Float32Array
      start(scale)
      graph.replay()
      const got = device.download(out) as Float32Array
      const worst = Math.max(...got.map((v, i) => Math.abs(v - want[i]!)))
      expect(worst).toBeLessThan(0.02 * Math.max(...want.map(Math.abs))) // fused and unfused round at other places
    }
    graph.release()
  })

  test('throws the reason after an abort: what is called, what is replayed, what is read', async () => {
    const x = arena.empty([1, 64], 'f32')
    const graph = device.capture(() => tp.allReduce(x))
    graph.replay()
    const reading = device.read(x)
    tp.abort('rank 7 ended with status 9')
    const failed = { code: 'RANK_FAILED', message: 'rank 7 ended with status 9' }
    expect(() => tp.allReduce(x)).toThrow(expect.objectContaining(failed))
    expect(() => graph.replay()).toThrow(expect.objectContaining(failed))
    await expect(reading.wait()).rejects.toMatchObject(failed)
    graph.release()
  })

  test('a rank that does not come to the first meeting', async () => {
    const meeting = createNcclCommunicator(device, { rank: 0, size: 2, id: createNcclId(), timeoutMs: 1500 })
    await expect(meeting).rejects.toMatchObject({ code: 'RANK_FAILED', message: expect.stringMatching(/not all of 2 ranks came/) })
  })
})

describeOnCuda('two ranks that share a GPU', () => {
  const program = fileURLToPath(new URL('communicator-rank.mjs', import.meta.url))
  const ranks = (task: string) => {
    const id = Buffer.from(createNcclId()).toString('base64')
    return [0, 1].map((rank) =>
      run(process.execPath, [program, String(rank), '2', id, task], {
        timeout: 90_000,
        env: { ...process.env, NCCL_HOSTID: `host-${rank}`, NCCL_SOCKET_IFNAME: 'lo', NCCL_IB_DISABLE: '1', NCCL_NET: 'Socket' },
      }),
    )
  }
  const linesOf = (text: string) =>
    text
      .trim()
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Record<string, unknown>)

  test('sum and gather in a graph, strided', async () => {
    const outs = await Promise.all(ranks('sums'))
    const lines = outs.map(({ stdout }) => linesOf(stdout))
    expect(lines[0]).toEqual(lines[1])
    expect(lines[0]).toHaveLength(3)
    const part = (rank: number, row: number) => Array.from({ length: 20 }, (_, c) => ((row * 20 + c) % 23) + 100 * rank)
    for (const { sum, all } of lines[0]!) {
      expect(all).toEqual([0, 1, 2].flatMap((row) => [...part(0, row), ...part(1, row)]))
      const sums = (row: number) => part(0, row).map((v, i) => v + part(1, row)[i]!)
      expect(sum).toEqual([0, 1, 2].flatMap((row) => [...Array(8).fill(-1), ...sums(row), ...Array(12).fill(-1)]))
    }
  })

  test('one that is killed is told by the other within seconds', async () => {
    const [first, second] = ranks('killed')
    await expect(second).rejects.toMatchObject({ signal: 'SIGKILL' })
    const [line] = linesOf((await first!).stdout)
    expect(line).toMatchObject({ code: 'RANK_FAILED' })
    expect(line!['seconds']).toBeLessThan(10)
  })
})

test('without the library the error says what to do', () => {
  const script = `import { createNcclId } from '@aphrodite/kernels-cuda'
    try { createNcclId() } catch (e) { console.log(e.code + ' ' + e.message) }`
  const out = execFileSync(process.execPath, ['--input-type=module', '-e', script], {
    cwd: fileURLToPath(new URL('.', import.meta.url)),
    env: { PATH: process.env['PATH'], APHRODITE_NCCL_PATH: '/nowhere' },
    encoding: 'utf8',
  })
  // A machine may have one where the loader finds it, or no CUDA kernels.
  expect(out === '' || /^NO_NCCL .*APHRODITE_NCCL_PATH|^NO_CUDA /.test(out)).toBe(true)
})
