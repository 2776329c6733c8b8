// Runs the op table on the GPU beside the reference: node scripts/op-table.mjs [--part=3/8] [--alone] [op …]
//
// --part: every 8th case from the third on. --alone: nothing is compared, for a checker that watches memory.
import { createReferenceDevice, OP_CASES, outputsOf, runOpCase } from '@aphrodite/testing'
import { createCudaDevice } from '../dist/index.js'

const wanted = process.argv.slice(2).filter((arg) => !arg.startsWith('--'))
const alone = process.argv.includes('--alone')
const [part, parts] = (process.argv.find((arg) => arg.startsWith('--part='))?.slice(7) ?? '1/1').split('/').map(Number)
const device = createCudaDevice()
const reference = createReferenceDevice()
console.log(device.description)
let passed = 0
let failed = 0
const counts = new Map()
const cases = OP_CASES.filter(({ op }) => wanted.length === 0 || wanted.includes(op)).filter((_, i) => i % parts === part - 1)
for (const opCase of cases) {
  let failure
  try {
    if (alone) outputsOf(opCase, device)
    else failure = runOpCase(opCase, device, outputsOf(opCase, reference)).failure
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
