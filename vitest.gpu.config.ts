import { defineConfig } from 'vitest/config'

/** Tests that need a GPU, one file after the other, since they look at its memory. Without one they fail: npm test skips them. */
export default defineConfig({
  test: {
    include: ['packages/*/test/**/*.gpu.test.ts', 'tests/src/**/*.gpu.test.ts'],
    pool: 'forks',
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 60_000,
    env: { CUDA_TESTS: 'required' },
  },
})
