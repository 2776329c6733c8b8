import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { formatReport, verifyModel } from '@aphrodite/testing'
import lantern from 'lantern-model'

const reference = fileURLToPath(new URL('../checkpoint', import.meta.url))

test('Lantern conforms, and gives the logits that checkpoint/make.py computed', async () => {
  const report = await verifyModel(lantern, { reference, assert: false })
  console.log(formatReport(report))
  assert.deepEqual(report.problems, [])
  assert.ok(report.runs.some((run) => run.against === 'reference.safetensors'))
})
