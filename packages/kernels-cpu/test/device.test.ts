import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { AphroditeError, Arena, Tensor } from '@aphrodite/tensor'
import { afterEach, describe, expect, it } from 'vitest'
import { type CpuDevice, type CpuDeviceOptions, createCpuDevice, ISAS } from '../src/device.ts'
import { loadNative } from '../src/native.ts'

const open: CpuDevice[] = []
const create = (options: CpuDeviceOptions = {}): CpuDevice => {
  const device = createCpuDevice(options)
  open.push(device)
  return device
}
afterEach(() => {
  for (const device of open.splice(0)) device.close()
})
const failure = (f: () => unknown): AphroditeError => {
  try {
    f()
  } catch (e) {
    if (e instanceof AphroditeError) return e
    throw e
  }
  throw new Error('nothing was thrown')
}
const threadsOfProcess = (): number => Number(readFileSync('/proc/self/status', 'utf8').match(/^Threads:\s+(\d+)/m)?.[1])
const coresOfThread = (): string | undefined => readFileSync('/proc/thread-self/status', 'utf8').match(/^Cpus_allowed_list:\s+(\S+)/m)?.[1]

describe('createCpuDevice', () => {
  it('says what it is', () => {
    expect(create({ threads: 2 }).description).toMatch(/^cpu \(.+, (portable|avx2|avx512|avx512-bf16), 2 threads\)$/)
    expect(create({ threads: 1, isa: 'portable' }).description).toMatch(/, portable, 1 thread\)$/)
  })

  it('refuses what it does not understand', () => {
    expect(failure(() => createCpuDevice({ thread: 2 } as CpuDeviceOptions)).message).toBe(
      'createCpuDevice has no option "thread". Did you mean "threads"?',
    )
    expect(failure(() => createCpuDevice({ isa: 'avx513' as 'avx512' })).message).toContain('Did you mean "avx512"?')
    for (const threads of [-1, 1.5, 1025, Number.NaN, '2' as unknown as number])
      expect(failure(() => createCpuDevice({ threads })).code).toBe('BAD_OPTION')
  })

  it('supports bf16 where the processor multiplies it', () => {
    for (const isa of ISAS.slice(0, loadNative().bestIsa() + 1)) {
      const device = create({ isa, threads: 1 })
      expect(device.supports('f32')).toBe(true)
      expect(device.supports('bf16')).toBe(isa === 'avx512-bf16')
    }
  })

  it('knows how much memory there is', () => {
    const { total, free } = create().memory()
    expect(total).toBeGreaterThan(2 ** 28)
    expect(free).toBeGreaterThan(0)
    expect(free).toBeLessThanOrEqual(total)
  })
})

describe('close', () => {
  it('ends its threads, and may be called twice', () => {
    create({ threads: 1 }) // whatever the process starts at the first device is there now
    const before = threadsOfProcess()
    const device = createCpuDevice({ threads: 4 })
    expect(threadsOfProcess()).toBe(before + 3)
    device.close()
    device.close()
    expect(threadsOfProcess()).toBe(before)
  })

  it('lets the calling thread run where it could before, after the last of two devices', () => {
    const before = coresOfThread()
    const a = createCpuDevice({ threads: 1 })
    const b = createCpuDevice({ threads: 1 })
    expect(coresOfThread()).toMatch(/^\d+$/)
    a.close()
    expect(coresOfThread()).toMatch(/^\d+$/)
    b.close()
    expect(coresOfThread()).toBe(before)
  })

  it('leaves the calling thread alone when it should not pin', () => {
    const before = coresOfThread()
    create({ pin: false })
    expect(coresOfThread()).toBe(before)
  })

  it('makes every later call an error', () => {
    const device = createCpuDevice({ threads: 1 })
    const arena = new Arena(device, 1 << 20)
    const t = arena.empty([2, 2], 'f32')
    const w = arena.packed(2, 2, 'f32')
    const ids = arena.empty([2], 'i32')
    device.close()
    const calls: (() => unknown)[] = [
      () => device.kernels.linear(t, t, w),
      () => device.kernels.embedding(t, ids, w, 0),
      () => device.allocate(64),
      () => device.release(t.address),
      () => device.upload(t, new Float32Array(4)),
      () => device.download(t),
      () => device.pack(w, { bytes: new Uint8Array(16), dtype: 'f32', shape: [2, 2], strides: [2, 1] }, 0, 0),
      () => device.unpack(w),
    ]
    for (const call of calls) expect(failure(call).code).toBe('DEVICE_CLOSED')
  })

  it('is not needed for a process to end', () => {
    const url = new URL('../dist/index.js', import.meta.url).href
    const run = spawnSync(
      process.execPath,
      ['--input-type=module', '-e', `import { createCpuDevice } from '${url}'; createCpuDevice({ threads: 2 })`],
      {
        timeout: 10_000,
      },
    )
    expect(run.status, String(run.stderr)).toBe(0)
  })

  it('happens by itself when a worker thread ends', () => {
    const url = new URL('../dist/index.js', import.meta.url).href
    const script = `
      import { Worker, isMainThread } from 'node:worker_threads'
      import { readFileSync } from 'node:fs'
      const threads = () => Number(readFileSync('/proc/self/status', 'utf8').match(/^Threads:\\s+(\\d+)/m)[1])
      const run = () => new Promise((done) => new Worker("import('${url}').then((m) => { m.createCpuDevice({ threads: 3 }).allocate(1 << 20); process.exit(0) })", { eval: true }).on('exit', done))
      await run()
      const before = threads()
      for (let i = 0; i < 3; i++) await run()
      console.log(threads() - before)`
    const out = spawnSync(process.execPath, ['--input-type=module', '-e', script], { timeout: 20_000 })
    expect(String(out.stdout).trim(), String(out.stderr)).toBe('0')
  })
})

describe('memory', () => {
  it('is zeroed, aligned, and released once', () => {
    const device = create({ threads: 1 })
    const address = device.allocate(1000)
    expect(address % 256).toBe(0)
    expect(device.download(u8(device, address, 1000))).toEqual(new Uint8Array(1000))
    device.release(address)
    expect(failure(() => device.release(address)).message).toContain('release: address')
    expect(failure(() => device.release(12345)).code).toBe('BAD_ARGUMENT')
  })

  it('throws OUT_OF_MEMORY for what no machine has', () => {
    const device = create({ threads: 1 })
    expect(failure(() => device.allocate(2 ** 45)).code).toBe('OUT_OF_MEMORY')
    for (const bytes of [-1, 1.5, Number.NaN]) expect(failure(() => device.allocate(bytes)).message).toContain('bytes')
  })

  it('uploads and downloads strided tensors of every rank, converting floats', () => {
    const device = create({ threads: 1 })
    const arena = new Arena(device, 1 << 20)
    const values = Float32Array.from({ length: 2 * 3 * 4 * 5 }, (_, i) => i - 60)
    for (const dtype of ['f32', 'bf16', 'f16'] as const) {
      const t = arena.empty([2, 3, 4, 5], dtype)
      device.upload(t, values)
      expect(device.download(t)).toEqual(values)
      const part = t.narrow(1, 1, 2).narrow(3, 2, 3)
      const want: number[] = []
      for (let a = 0; a < 2; a++)
        for (let b = 1; b < 3; b++) for (let c = 0; c < 4; c++) for (let d = 2; d < 5; d++) want.push(((a * 3 + b) * 4 + c) * 5 + d - 60)
      expect(device.download(part)).toEqual(Float32Array.from(want))
      device.upload(part, new Float32Array(part.size).fill(99))
      expect((device.download(t) as Float32Array).filter((v) => v === 99).length).toBe(part.size)
      device.upload(part, { bytes: new Uint8Array(values.buffer), dtype: 'f32', shape: part.shape, strides: [1, 2, 4, 16] })
      expect((device.download(part) as Float32Array)[3 + 1]).toBe(values[16 + 4])
    }
    const ids = arena.empty([3], 'i32')
    device.upload(ids, Int32Array.of(1, -2, 3))
    expect(device.download(ids)).toEqual(Int32Array.of(1, -2, 3))
    const scalar = arena.empty([], 'f32')
    device.upload(scalar, Float32Array.of(4))
    expect(device.download(scalar)).toEqual(Float32Array.of(4))
    expect(device.download(arena.empty([0, 5], 'f32'))).toEqual(new Float32Array(0))
  })
})

describe('bad arguments are errors that name the op and the argument', () => {
  const device = createCpuDevice({ threads: 2 })
  const other = createCpuDevice({ threads: 1 })
  const arena = new Arena(device, 1 << 20)
  const t = (shape: number[], dtype: 'f32' | 'i32' | 'u8' = 'f32') => arena.empty(shape, dtype)
  const at = (address: number, shape: number[], strides: number[], like = t([1])) =>
    new Tensor(address, like.dtype, shape, strides, arena, like.block)
  const out = t([4, 8])
  const x = t([4, 6])
  const w = arena.packed(8, 6, 'f32')
  const foreign = new Arena(other, 1 << 20).empty([4, 6], 'f32')
  const bytes = new Uint8Array(1024)
  const cases: [string, () => void, RegExp][] = [
    ['null address', () => device.kernels.linear(out, at(0, [4, 6], [6, 1]), w), /^linear: x is a null/],
    ['not a number', () => device.kernels.linear(out, at(Number.NaN, [4, 6], [6, 1]), w), /^linear: x is a null or impossible/],
    ['outside', () => device.kernels.linear(out, at(x.address + (64 << 20), [4, 6], [6, 1]), w), /^linear: x lies outside/],
    ['past the end', () => device.kernels.linear(out, at(x.address, [4, 6], [1 << 20, 1]), w), /^linear: x lies outside/],
    ['another device', () => device.kernels.linear(out, foreign, w), /^linear: x lies outside/],
    ['overlapping rows', () => device.kernels.linear(out, at(x.address, [4, 6], [5, 1]), w), /^linear: x has rows that overlap/],
    ['misaligned', () => device.kernels.linear(out, at(x.address + 2, [4, 6], [6, 1]), w), /^linear: x is not aligned/],
    ['wrong dtype', () => device.kernels.linear(out, t([4, 6], 'i32'), w), /^linear: x should be f32, f16 or bf16/],
    ['rows differ', () => device.kernels.linear(t([3, 8]), x, w), /^linear: out and x should have as many rows/],
    ['columns of out', () => device.kernels.linear(t([4, 7]), x, w), /^linear: out should have a column/],
    ['columns of x', () => device.kernels.linear(out, t([4, 5]), w), /^linear: x should have a column/],
    ['length of bias', () => device.kernels.linear(out, x, w, t([7])), /^linear: bias should be floats/],
    ['out is x', () => device.kernels.linear(at(x.address, [4, 8], [8, 1]), x, w), /^linear: out and x should not be the same/],
    ['three dimensions', () => device.kernels.linear(out, t([4, 2, 3]), w), /^linear: x is \[4,2,3\]; it should have two/],
    ['last stride', () => device.kernels.linear(out, at(x.address, [4, 6], [12, 2]), w), /^linear: x has a stride of 2/],
    ['huge', () => device.kernels.linear(out, at(x.address, [2 ** 39, 6], [2 ** 39, 1]), w), /^linear: x (is larger|lies outside)/],
    ['negative', () => device.kernels.linear(out, at(x.address, [-1, 6], [6, 1]), w), /^linear: x is out of range/],
    ['weight elsewhere', () => device.kernels.linear(out, x, { ...w, address: 64 }), /^linear: weight lies outside/],
    ['weight misaligned', () => device.kernels.linear(out, x, { ...w, address: w.address + 4 }), /^linear: weight is not aligned/],
    ['ids', () => device.kernels.embedding(t([4, 6]), t([4]), w, 0), /^embedding: ids has the wrong dtype/],
    ['embedding rows', () => device.kernels.embedding(t([3, 6]), t([4], 'i32'), w, 0), /^embedding: out should have a row/],
    [
      'pack too short',
      () => device.pack(w, { bytes, dtype: 'f32', shape: [8, 6], strides: [1000, 1] }, 0, 0),
      /^pack: src has fewer bytes/,
    ],
    [
      'pack outside',
      () => device.pack(w, { bytes, dtype: 'f32', shape: [8, 6], strides: [6, 1] }, 1, 0),
      /^pack: src \[8,6\] at row 1, column 0/,
    ],
    ['pack integers', () => device.pack(w, { bytes, dtype: 'i32', shape: [8, 6], strides: [6, 1] }, 0, 0), /^pack: src should be floats/],
    [
      'pack a vector',
      () => device.pack(w, { bytes, dtype: 'f32', shape: [8], strides: [1] }, 0, 0),
      /^pack: src is \[8\]; it should have two/,
    ],
    ['pack negative', () => device.pack(w, { bytes, dtype: 'f32', shape: [8, 6], strides: [-6, 1] }, 0, 0), /^pack: src is out of range/],
    ['upload size', () => device.upload(x, new Float32Array(23)), /^upload: src has 23 elements/],
    ['upload shape', () => device.upload(x, { bytes, dtype: 'f32', shape: [6, 4], strides: [4, 1] }), /^upload: src is \[6,4\]/],
    [
      'upload short',
      () => device.upload(x, { bytes: bytes.subarray(0, 95), dtype: 'f32', shape: [4, 6], strides: [6, 1] }),
      /^upload: src has fewer/,
    ],
    ['upload integers', () => device.upload(x, Int32Array.from({ length: 24 })), /^upload: src has a dtype/],
    ['download', () => device.download(at(0, [4], [1])), /^download: src is a null/],
  ]
  it.each(cases)('%s', (_, call, message) => {
    const error = failure(call)
    expect(error.message).toMatch(message)
    expect(['BAD_ARGUMENT', 'BAD_SHAPE']).toContain(error.code)
  })

  it('and everything still works afterwards', () => {
    device.pack(w, { bytes: new Uint8Array(new Float32Array(48).fill(1).buffer), dtype: 'f32', shape: [8, 6], strides: [6, 1] }, 0, 0)
    device.upload(x, new Float32Array(24).fill(2))
    device.kernels.linear(out, x, w)
    expect(device.download(out)).toEqual(new Float32Array(32).fill(12))
    device.kernels.linear(out.narrow(0, 0, 0), x.narrow(0, 0, 0), w)
    device.close()
    other.close()
  })
})

describe('threads', () => {
  it('two devices of one process take turns', () => {
    const devices = [create({ threads: 2 }), create({ threads: 3, pin: false })]
    const parts = devices.map((device) => {
      const arena = new Arena(device, 1 << 20)
      const [x, out, w] = [arena.empty([3, 64], 'f32'), arena.empty([3, 640], 'f32'), arena.packed(640, 64, 'f32')]
      device.pack(
        w,
        { bytes: new Uint8Array(new Float32Array(640 * 64).fill(1).buffer), dtype: 'f32', shape: [640, 64], strides: [64, 1] },
        0,
        0,
      )
      device.upload(x, new Float32Array(3 * 64).fill(1))
      return { device, x, out, w }
    })
    for (let i = 0; i < 200; i++) for (const { device, x, out, w } of parts) device.kernels.linear(out, x, w)
    for (const { device, out } of parts) expect(device.download(out)).toEqual(new Float32Array(3 * 640).fill(64))
  })

  it.each([2, 5])('100,000 tiny fork-joins on %i threads each do all their chunks', (threads) => {
    const device = create({ threads })
    const arena = new Arena(device, 1 << 20)
    // One number of k: every op is little but its fork-join of several chunks.
    const [x, out, w] = [arena.empty([1, 1], 'f32'), arena.empty([1, 1024], 'f32'), arena.packed(1024, 1, 'f32')]
    device.pack(
      w,
      { bytes: new Uint8Array(Float32Array.from({ length: 1024 }, (_, i) => i).buffer), dtype: 'f32', shape: [1024, 1], strides: [1, 1] },
      0,
      0,
    )
    device.upload(x, Float32Array.of(2))
    const rounds = threads === 2 ? 100_000 : 2_000 // more threads than cores: each join may wait for a time slice
    for (let i = 1; i <= rounds; i++) {
      device.kernels.linear(out, x, w)
      if (i % (rounds / 20) === 0) {
        expect(device.download(out)).toEqual(Float32Array.from({ length: 1024 }, (_, j) => 2 * j))
        device.upload(out, new Float32Array(1024))
      }
    }
  })
})

function u8(device: CpuDevice, address: number, bytes: number): Tensor {
  const arena = new Arena(device)
  const like = arena.empty([1], 'u8')
  return new Tensor(address, 'u8', [bytes], [1], arena, like.block)
}
