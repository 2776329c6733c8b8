import { createReferenceDevice, OP_CASES, outputsOf, runOpCase } from '@aphrodite/testing'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type CudaDevice, createCudaDevice } from '../src/index.ts'
import { describeOnCuda } from './on-cuda.ts'

const ops = [...new Set(OP_CASES.map((c) => c.op))]

describeOnCuda('op table on CUDA', () => {
  const reference = createReferenceDevice()
  let device: CudaDevice
  beforeAll(() => {
    device = createCudaDevice()
  })
  afterAll(() => device?.close())

  it.each(ops)('%s agrees with the reference', { timeout: 120_000 }, (op) => {
    const failures: string[] = []
    for (const opCase of OP_CASES.filter((c) => c.op === op)) {
      const { failure } = runOpCase(opCase, device, outputsOf(opCase, reference))
      if (failure) failures.push(`${opCase.name}: ${failure}`)
    }
    expect(failures).toEqual([])
  })

  it('gives the same bits when it is asked again', { timeout: 120_000 }, () => {
    const differing = OP_CASES.filter((c) => {
      const [a, b] = [outputsOf(c, device), outputsOf(c, device)]
      return a.some((x, i) => Buffer.compare(bytesOf(x), bytesOf(b[i]!)) !== 0)
    })
    expect(differing.map((c) => `${c.op} ${c.name}`)).toEqual([])
  })
})

const bytesOf = (x: Float32Array | Int32Array | Uint8Array): Buffer => Buffer.from(x.buffer, x.byteOffset, x.byteLength)
