import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { readSafetensors, verifyModel } from '@aphrodite/testing'
import { expect, test } from 'vitest'

/** What docs/guides/make_reference.py wrote for a config of 6 heads over 3 key heads, in this form alone. */
const folder = fileURLToPath(new URL('../fixtures/made/llama', import.meta.url))

test('make_reference.py writes prompts, logits, greedy tokens and their gaps', () => {
  const found = Object.entries(readSafetensors(join(folder, 'reference.safetensors'))).map(([name, { dtype, shape }]) => [
    name,
    dtype,
    shape,
  ])
  const expected = [5, 19, 61].flatMap((length, k) => [
    [`prompt.${k}`, 'i32', [length]],
    [`logits.${k}`, 'f32', [k === 2 ? 1 : length, 89]],
    [`greedy.${k}`, 'i32', [24]],
    [`gap.${k}`, 'f32', [24]],
  ])
  expect(found.sort()).toEqual(expected.sort())
})

test('and a checkpoint that a model of ours gives the same logits for', async () => {
  const { problems } = await verifyModel('LlamaForCausalLM', { reference: folder, assert: false })
  expect(problems).toEqual([])
})
