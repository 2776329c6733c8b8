// The prepack script of npm/kernels-cuda-linux-x64: copies the addon there, if it is built for everything that a release runs on.
// KERNELS_CUDA_ARCHS=any takes it as it is: for a rehearsal.
import { copyFileSync, existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const RELEASED = '80 89 90 ptx90'
const addon = fileURLToPath(new URL('../prebuilt/kernels_cuda.node', import.meta.url))
const fail = (message) => {
  console.error(`kernels-cuda: ${message}`)
  process.exit(1)
}
if (!existsSync(addon)) fail(`${addon} is not there: a release needs nvcc and KERNELS_CUDA_ARCHS=all npm run build`)
const { targets } = createRequire(import.meta.url)(addon).probe()
if (targets !== RELEASED && process.env.KERNELS_CUDA_ARCHS !== 'any')
  fail(`the addon is built for ${targets}, a release for ${RELEASED}: KERNELS_CUDA_ARCHS=all npm run build`)
copyFileSync(addon, join(process.cwd(), 'kernels_cuda.node'))
