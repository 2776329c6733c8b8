import { describe, expect, test } from 'vitest'
import { ALIGNMENT, Arena, type Device, didYouMean, nearest, type Tensor, Workspace } from '../src/index.ts'

/** Addresses only: what these tests look at is where tensors lie. */
function addressDevice(): Device & { live: Map<number, number> } {
  const live = new Map<number, number>()
  let next = ALIGNMENT
  const device = {
    live,
    allocate(bytes: number) {
      const address = next
      live.set(address, bytes)
      next += Math.ceil(bytes / ALIGNMENT) * ALIGNMENT + ALIGNMENT
      return address
    },
    release(address: number) {
      if (!live.delete(address)) throw new Error(`${address} was not allocated`)
    },
    packedBytes: (_format: string, n: number, k: number) => n * k * 2,
  }
  return device as unknown as Device & { live: Map<number, number> }
}

const range = (t: Tensor): [number, number] => [t.address, t.address + t.size * (t.dtype === 'f32' ? 4 : 2)]
const overlap = ([a, b]: [number, number], [c, d]: [number, number]) => a < d && c < b

describe('Workspace', () => {
  test('10,000 random tensors of nested frames never overlap while they are live, and all is free at the end', () => {
    let state = 7
    const random = (n: number) => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0
      return (state >>> 8) % n
    }
    const workspace = new Workspace(addressDevice(), 1 << 22)
    let made = 0
    const live = new Set<Tensor>()
    const make = () => {
      const t = workspace.empty([1 + random(9), 1 + random(300)], random(2) ? 'f32' : 'bf16')
      for (const other of live) if (other.block.live) expect(overlap(range(t), range(other))).toBe(false)
      live.add(t)
      made++
      return t
    }
    const frame = (x: Tensor, depth: number): Tensor =>
      workspace.tidy(x, (y) => {
        let z = y
        for (let i = random(5); i >= 0; i--) z = depth > 0 && random(3) === 0 ? frame(make(), depth - 1) : make()
        return z
      })
    while (made < 10_000) {
      let x = make()
      for (let i = 0; i < 5; i++) x = frame(x, 3)
      expect(x.block.live).toBe(true)
      workspace.reset()
      for (const t of live) expect(t.block.live).toBe(false)
      live.clear()
    }
    expect(workspace.empty([1 << 20], 'f32').size).toBe(1 << 20) // the whole slab is one hole again
  })

  test('the same sequence of requests gets the same addresses every step', () => {
    const workspace = new Workspace(addressDevice(), 1 << 20)
    const step = () => {
      const addresses: number[] = []
      let x = workspace.empty([4, 64], 'bf16')
      for (let i = 0; i < 6; i++) {
        x = workspace.tidy(x, (y) => {
          const a = y.empty([4, 256])
          const b = a.empty([4, 64])
          addresses.push(a.address, b.address)
          return b
        })
      }
      workspace.reset()
      return addresses
    }
    expect(step()).toEqual(step())
  })

  test('what does not fit is an error with both sizes, and frees nothing', () => {
    const workspace = new Workspace(addressDevice(), 1024)
    const a = workspace.empty([100], 'f32')
    expect(() => workspace.empty([1000], 'f32')).toThrow(/1024 bytes has no room for \[1000\] f32: 512 bytes are in use/)
    expect(a.block.live).toBe(true)
  })

  test('claim takes an earlier place again, and only while nothing else lies there', () => {
    const workspace = new Workspace(addressDevice(), 4096)
    workspace.empty([10], 'f32')
    const temporary = workspace.empty([100], 'f32')
    const result = workspace.empty([64], 'f32')
    workspace.reset()
    workspace.empty([10], 'f32')
    const again = workspace.claim(result)
    expect([again.address, again.shape, again.block.live]).toEqual([result.address, [64], true])
    expect(workspace.empty([100], 'f32').address).toBe(temporary.address) // the hole before it is a hole still
    expect(workspace.empty([300], 'f32').address).toBeGreaterThan(result.address) // and what is behind it
    expect(() => workspace.claim(result)).toThrow(/are taken/)
    workspace.reset()
    expect(workspace.empty([1024], 'f32').size).toBe(1024)
  })

  test('a throw inside tidy gives the frame back', () => {
    const workspace = new Workspace(addressDevice(), 2048)
    const x = workspace.empty([10], 'f32')
    expect(() =>
      workspace.tidy(x, (y) => {
        y.empty([300], 'f32')
        throw new Error('boom')
      }),
    ).toThrow('boom')
    expect(workspace.empty([500], 'f32').size).toBe(500)
  })
})

describe('Arena', () => {
  test('grows by slabs, aligns, and gives everything back', () => {
    const device = addressDevice()
    const arena = new Arena(device, 4096)
    const tensors = [arena.empty([3], 'f32'), arena.empty([5000], 'bf16'), arena.empty([1], 'u8')]
    for (const t of tensors) expect(t.address % ALIGNMENT).toBe(0)
    expect(arena.usedBytes).toBe(256 + 10_240 + 256)
    expect(arena.packed(32, 16, 'bf16').address % ALIGNMENT).toBe(0)
    arena.release()
    expect(device.live.size).toBe(0)
    expect(tensors[0]!.block.live).toBe(false)
  })
})

describe('Tensor', () => {
  const x = new Workspace(addressDevice(), 1 << 16).empty([6, 8], 'bf16')

  test('narrow and view share memory', () => {
    const right = x.narrow(1, 2, 4)
    expect([right.address - x.address, right.shape, right.strides]).toEqual([4, [6, 4], [8, 1]])
    expect(right.isContiguous()).toBe(false)
    expect(right.view(-1, 2, 2).strides).toEqual([8, 2, 1])
    expect(x.narrow(0, 2, 3).address - x.address).toBe(2 * 8 * 2)
  })

  test('what is not there is an error', () => {
    expect(() => x.narrow(1, 6, 3)).toThrow('narrow(1, 6, 3) of [6,8]')
    expect(() => x.narrow(0, -1, 3)).toThrow(/narrow/)
    expect(() => x.view(5, 5)).toThrow('view [5,5] of [6,8]')
    expect(() => x.narrow(1, 0, 4).view(24)).toThrow(/strided/)
    expect(() => x.dim(2)).toThrow(/no dimension 2/)
  })
})

test('nearest finds a slip of the finger and leaves the rest alone', () => {
  const names = ['temperature', 'topK', 'topP', 'maxTokens']
  expect(nearest('temprature', names)).toBe('temperature')
  expect(nearest('top_k', names)).toBe('topK')
  expect(nearest('frobnicate', names)).toBeUndefined()
  expect(didYouMean('maxTokes', names)).toBe(' Did you mean "maxTokens"?')
})
