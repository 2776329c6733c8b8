import { expect, test } from 'vitest'
import { importModule } from '../src/import-module.ts'

test('a module that waits forever at its top level is given up, and said so', async () => {
  const module = 'data:text/javascript,await new Promise(() => {})'
  await expect(importModule(module, 50)).rejects.toThrow(/not imported after 0\.05 s\. Does it wait for something at its top level\?/)
})
