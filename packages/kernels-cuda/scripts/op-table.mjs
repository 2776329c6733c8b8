// Runs the op table on the GPU beside the reference: node scripts/op-table.mjs [op …]
import { createReferenceDevice, OP_CASES, outputsOf, runOpCase } from '@aphrodite/testing'
import { createCudaDevice } from '../dist/index.js'

const wanted = process.argv.slice(2)
const device = createCudaDevice()
const reference = createReferenceDevice()
console.log(device.description)
let passed = 0
let failed = 0
const counts = new Map()
for (const opCase of OP_CASES) {
  if (wanted.length > 0 && !wanted.includes(opCase.op)) continue
  let failure
  try {
    failure = runOpCase(opCase, device, outputsOf(opCase, reference)).failure
  } catch (error) {
    failure = `${error.code}: ${error.message}`
    if (error.code === 'CUDA_FAILED') {
      console.log(`FAIL ${opCase.op} ${opCase.name}: ${failure}\nthe device is broken from here on`)
      process.exit(1)
    }
  }
  const count = counts.get(opCase.op) ?? { passed: 0, failed: 0 }
  counts.set(opCase.op, count)
  if (failure) {
    count.failed++
    failed++
    if (count.failed <= 8) console.log(`FAIL ${opCase.op} ${opCase.name}: ${failure}`)
  } else {
    count.passed++
    passed++
  }
}
for (const [op, count] of counts) console.log(`${op.padEnd(16)} ${count.passed} passed${count.failed ? `, ${count.failed} FAILED` : ''}`)
console.log(`${passed} passed, ${failed} failed`)
device.close()
process.exit(failed > 0 ? 1 : 0)
