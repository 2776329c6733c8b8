import type { Device, Graph, HostArray, HostData, Kernels, Reading, Tensor } from '@aphrodite/tensor'

/**
 * A device that puts everything off as long as it may: uploads, ops, replays and reads stand in a queue, which moves on only
 * when somebody waits, and then no further than to what is waited for. Whoever looks at a result too early, or gives back or
 * changes memory that something enqueued still needs, gets it wrong here every time, and not one time in a thousand.
 *
 * What throws takes everything that is in the queue with it, as on a GPU; what is enqueued afterwards is done again. Inside, ops
 * are captured by `device` itself where it can.
 */
export function lazyDevice(device: Device): Device {
  const queue: (() => void)[] = []
  /** What is written down instead of being enqueued. */
  let recording: (() => void)[] | undefined
  let capturing = false

  const enqueue = (op: () => void): void => {
    if (recording) recording.push(op)
    else queue.push(op)
  }
  const notCaptured = (what: string): void => {
    if (capturing) throw new Error(`${what} cannot be captured`)
  }
  /** Does what is enqueued, up to `last`, which is in the queue or was. */
  const runUntil = (last?: () => void): void => {
    const end = last ? queue.indexOf(last) + 1 : queue.length
    const ops = queue.splice(0, end)
    for (const [i, op] of ops.entries()) {
      try {
        op()
      } catch (error) {
        for (const lost of [...ops.slice(i), ...queue.splice(0)]) failures.set(lost, error)
        throw error
      }
    }
  }
  const failures = new WeakMap<() => void, unknown>()

  const kernels = new Proxy(device.kernels, {
    get: (target, name: keyof Kernels) => {
      const kernel = target[name] as ((...args: unknown[]) => void) | undefined
      return kernel && ((...args: unknown[]) => (capturing && !recording ? kernel(...args) : enqueue(() => kernel(...args))))
    },
  })

  const capture = (body: () => void): Graph => {
    notCaptured('a capture')
    capturing = true
    try {
      if (device.capture) {
        const graph = device.capture(body)
        return { replay: () => enqueue(() => graph.replay()), release: () => graph.release() }
      }
      const ops: (() => void)[] = []
      recording = ops
      body()
      return { replay: () => queue.push(...ops), release: () => ops.splice(0) }
    } finally {
      recording = undefined
      capturing = false
    }
  }

  return {
    kind: device.kind,
    description: `lazy ${device.description}`,
    kernels,
    supports: (dtype) => device.supports(dtype),
    asynchronous: true,
    allocate: (bytes) => device.allocate(bytes),
    release(address) {
      if (queue.length > 0) throw new Error('memory is given back while something is enqueued')
      device.release(address)
    },
    memory: () => device.memory(),
    upload(dst, src) {
      notCaptured('an upload')
      const copy = copied(src)
      enqueue(() => device.upload(dst, copy))
    },
    download(src) {
      notCaptured('a download')
      runUntil()
      return device.download(src)
    },
    read(src: Tensor): Reading {
      notCaptured('a read')
      let reading: Reading | undefined
      const op = (): void => {
        reading = device.read(src)
      }
      enqueue(op)
      return {
        async wait() {
          // Others get a turn in which nothing has been done yet.
          await new Promise<void>((resolve) => setImmediate(resolve))
          if (!reading && !failures.has(op)) runUntil(op)
          if (failures.has(op)) throw failures.get(op)
          return reading!.wait()
        },
      }
    },
    packedBytes: (format, outFeatures, inFeatures) => device.packedBytes(format, outFeatures, inFeatures),
    pack(dst, src, row, column) {
      runUntil()
      device.pack(dst, src, row, column)
    },
    unpack(src) {
      runUntil()
      return device.unpack(src)
    },
    pageBytes: (shape) => device.pageBytes(shape),
    capture,
    async synchronize() {
      runUntil()
      await device.synchronize()
    },
    close: () => device.close(),
  }
}

/** The caller may change its array as soon as an upload has returned. */
const copied = (src: HostArray | HostData): HostArray | HostData =>
  ArrayBuffer.isView(src) ? (src.slice() as HostData) : { ...src, bytes: src.bytes.slice() }
