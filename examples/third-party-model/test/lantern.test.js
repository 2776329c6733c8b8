import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'
import { test } from 'node:test'
import { LLM, verifyReference } from '@aphrodite/llm'

const folder = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url))

for (const dtype of ['float32', 'bfloat16'])
  test(`${dtype} gives the logits that checkpoint/make.py computed`, async () => {
    const llm = await LLM.create({ model: folder('checkpoint'), plugins: [folder('.')], device: 'cpu', dtype, skipTokenizerInit: true })
    try {
      const report = await verifyReference(llm, folder('checkpoint/reference.safetensors'))
      assert.equal(report.prompts.length, 3)
      assert.ok(report.passed, JSON.stringify(report.prompts))
    } finally {
      await llm.close()
    }
  })
