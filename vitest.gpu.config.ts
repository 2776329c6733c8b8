import { defineConfig } from 'vitest/config'

const common = { pool: 'forks', testTimeout: 120_000, hookTimeout: 60_000, env: { CUDA_TESTS: 'required' } } as const
const MEMORY = 'tests/src/cuda-memory.gpu.test.ts'

/** Tests that need a GPU; without one they fail, where npm test skips them. What looks at the GPU's memory comes last and alone. */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          ...common,
          name: 'gpu',
          include: ['packages/*/test/**/*.gpu.test.ts', 'tests/src/**/*.gpu.test.ts'],
          exclude: [MEMORY],
          maxWorkers: 4,
          sequence: { groupOrder: 0 },
        },
      },
      { test: { ...common, name: 'gpu-memory', include: [MEMORY], maxWorkers: 1, sequence: { groupOrder: 1 } } },
    ],
  },
})
