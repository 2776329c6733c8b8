import { createReferenceDevice, type Downloaded, OP_CASES, type OpCase, outputsOf, runOpCase } from '@aphrodite/testing'
import { afterAll, describe, expect, it } from 'vitest'
import { createCpuDevice, ISAS } from '../src/index.ts'

const ops = [...new Set(OP_CASES.map((c) => c.op))]
const reference = createReferenceDevice()
const known = new Map<OpCase, Downloaded[]>()
const expected = (opCase: OpCase): Downloaded[] => {
  const found = known.get(opCase) ?? outputsOf(opCase, reference)
  known.set(opCase, found)
  return found
}

describe.each(ISAS)('op table on %s', (isa) => {
  const device = open(isa)
  afterAll(() => device?.close())

  it.skipIf(!device).each(ops)('%s', (op) => {
    const failures: string[] = []
    for (const opCase of OP_CASES.filter((c) => c.op === op)) {
      const { failure } = runOpCase(opCase, device!, expected(opCase))
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
