import { createReferenceDevice, OP_CASES, runOpCase } from '@aphrodite/testing'
import { afterAll, describe, expect, it } from 'vitest'
import { createCpuDevice, ISAS } from '../src/index.ts'

const ops = [...new Set(OP_CASES.map((c) => c.op))]

describe.each(ISAS)('op table on %s', (isa) => {
  const reference = createReferenceDevice()
  const device = open(isa)
  afterAll(() => device?.close())

  it.skipIf(!device).each(ops)('%s', (op) => {
    const failures: string[] = []
    for (const opCase of OP_CASES.filter((c) => c.op === op)) {
      const { failure } = runOpCase(opCase, device!, reference)
      if (failure) failures.push(`${opCase.name}: ${failure}`)
    }
    expect(failures).toEqual([])
  })
})

function open(isa: (typeof ISAS)[number]) {
  try {
    return createCpuDevice({ isa, threads: 2 })
  } catch (error) {
    if ((error as { code?: string }).code === 'BAD_OPTION') return undefined // this processor does not have it
    throw error
  }
}
