import { probeCuda } from '@aphrodite/kernels-cuda'
import { describe, expect, test } from 'vitest'

const { devices, reason } = probeCuda()
const usable = devices.find((d) => d.reason === undefined)
const why = usable ? undefined : `no CUDA device: ${devices[0]?.reason ?? reason ?? 'none was found'}`

/** Tests that need a GPU: skipped, with the reason in their name, where there is none. `npm run test:gpu` fails instead. */
export function describeOnCuda(name: string, fn: () => void): void {
  if (why === undefined) describe(name, fn)
  else if (process.env['CUDA_TESTS'] === 'required') describe(name, () => test('has a GPU to run on', () => expect.fail(why)))
  else describe.skip(`${name} (${why})`, fn)
}
