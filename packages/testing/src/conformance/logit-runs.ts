import { createCpuDevice } from '@aphrodite/kernels-cpu'
import { createCudaDevice, probeCuda } from '@aphrodite/kernels-cuda'
import { watchedDevice } from '@aphrodite/layers/internal'
import { AphroditeError, type Device, type FloatDType } from '@aphrodite/tensor'
import { lockstep } from '../lockstep.ts'
import { createReferenceDevice } from '../reference/device.ts'
import type { Material, ReferencePrompt } from './material.ts'
import { Runner } from './runner.ts'
import { differenceOf, differenceOfWhole, type Runs } from './runs.ts'

/** float32 leaves rounding alone; bfloat16 has 8 bits, and every op of a layer rounds. */
const LIMIT = { f32: 1e-4, bf16: 3e-2, f16: 1e-2 }
/** Between ranks only the order of sums changes. */
const RANKS_LIMIT = 1e-5
const NAME = { f32: 'float32', bf16: 'bfloat16', f16: 'float16' }

export interface LogitRunsInput {
  readonly material: Material
  readonly prompts: readonly (readonly number[])[]
  readonly reference: readonly ReferencePrompt[]
  readonly maxTokens: number
  readonly ranks: readonly number[]
  readonly cuda: boolean
}

export const openCpu = (): Device => createCpuDevice({ threads: 2, pin: false })

/** Why there is no GPU to run on; undefined where there is one. */
export function noCuda(): string | undefined {
  const { devices, reason } = probeCuda()
  if (devices.some((d) => d.reason === undefined)) return undefined
  return `no CUDA device: ${devices[0]?.reason ?? reason ?? 'none was found'}`
}

/** Logits of whole prompts on every device, in chunks, and among ranks. Returns those of the reference backend, if it ran. */
export async function logitRuns(runs: Runs, input: LogitRunsInput): Promise<Float32Array[][] | undefined> {
  const { reference, cuda } = input
  let truth: Float32Array[][] | undefined
  const base = 'reference backend float32'
  // One prompt twice, the second time otherwise: what a model keeps from a step to the next is seen here, if nowhere else.
  const ran = await onDevice(
    runs,
    input,
    base,
    () => watchedDevice(createReferenceDevice()),
    'f32',
    async (runner) => {
      if (reference.length > 0) await againstReference(runs, input, runner, base, LIMIT.f32)
      await runs.compare(base, 'itself, token by token', RANKS_LIMIT, () => {
        truth = input.prompts.map((p) => runner.logits(p))
        return differenceOf(input.prompts, [runner.logits(input.prompts[0]!, 1)], [truth[0]!], RANKS_LIMIT)
      })
      if (truth) await chunked(runs, input, runner, base, truth, RANKS_LIMIT)
    },
  )
  if (!ran || !truth) return undefined
  const known = truth
  for (const dtype of ['f32', 'bf16'] as const) {
    const name = `cpu ${NAME[dtype]}`
    await onDevice(runs, input, name, openCpu, dtype, async (runner) => {
      if (reference.length > 0) await againstReference(runs, input, runner, name, LIMIT[dtype])
      const whole = await compareWhole(runs, input, runner, name, known, base, dtype)
      if (whole) await chunked(runs, input, runner, name, whole, 0)
    })
  }
  for (const size of input.ranks) await onRanks(runs, input, size)
  const why = cuda ? noCuda() : 'it was not asked for'
  if (why !== undefined) runs.skip('cuda', why)
  else
    for (const dtype of ['f32', 'bf16'] as const) {
      const name = `cuda ${NAME[dtype]}`
      await onDevice(
        runs,
        input,
        name,
        () => createCudaDevice(),
        dtype,
        async (runner) => {
          if (reference.length > 0) await againstReference(runs, input, runner, name, LIMIT[dtype])
          const whole = await compareWhole(runs, input, runner, name, known, base, dtype)
          if (whole) await chunked(runs, input, runner, name, whole, LIMIT[dtype])
        },
      )
    }
  return truth
}

/** Loads the model on a device and does something with it. A model that does not get that far is one failed run. */
async function onDevice(
  runs: Runs,
  { material, maxTokens }: LogitRunsInput,
  name: string,
  open: () => Device,
  dtype: FloatDType,
  use: (runner: Runner) => Promise<void>,
): Promise<boolean> {
  let device: Device | undefined
  const runner = await runs.attempt(`${name}, materialised and loaded`, async () => {
    device = open()
    const model = await material.create()
    return new Runner(model, material.weights, device, { dtype, maxTokens, load: (w) => material.load(model, w) })
  })
  try {
    if (runner) await use(runner)
    return runner !== undefined
  } finally {
    runner?.close()
    device?.close()
  }
}

async function compareWhole(
  runs: Runs,
  { prompts }: LogitRunsInput,
  runner: Runner,
  name: string,
  truth: Float32Array[][],
  base: string,
  dtype: FloatDType,
): Promise<Float32Array[][] | undefined> {
  let whole: Float32Array[][] | undefined
  await runs.compare(name, base, LIMIT[dtype], () => {
    whole = prompts.map((p) => runner.logits(p))
    return dtype === 'f32' ? differenceOf(prompts, whole, truth, LIMIT.f32) : differenceOfWhole(whole, truth, LIMIT[dtype])
  })
  return whole
}

async function chunked(
  runs: Runs,
  { prompts }: LogitRunsInput,
  runner: Runner,
  name: string,
  whole: Float32Array[][],
  limit: number,
): Promise<void> {
  for (const chunk of [7, 1]) {
    const few = chunk === 1 ? prompts.slice(0, 2) : prompts
    const how = chunk === 1 ? 'token by token' : `in chunks of ${chunk}`
    await runs.compare(`${name}, ${how}`, `${name}, whole prompts`, limit, () => {
      const got = few.map((p) => runner.logits(p, chunk))
      const expected = whole.slice(0, few.length)
      return limit <= LIMIT.f32 ? differenceOf(prompts, got, expected, limit) : differenceOfWhole(got, expected, limit)
    })
  }
}

async function againstReference(
  runs: Runs,
  { reference, maxTokens }: LogitRunsInput,
  runner: Runner,
  name: string,
  limit: number,
): Promise<void> {
  const compared = reference.filter((r) => r.prompt.length <= maxTokens)
  const prompts = compared.map((r) => r.prompt)
  await runs.compare(name, 'reference.safetensors', limit, () => {
    const got = prompts.map((p) => runner.logits(p))
    return differenceOf(
      prompts,
      got,
      compared.map((r) => r.logits),
      limit,
    )
  })
  await runs.compare(`${name}, greedy tokens`, 'reference.safetensors', 0, () => {
    const sure = limit <= LIMIT.f32 ? 1e-3 : 0.1
    for (const [k, { prompt, greedy, gap }] of compared.entries()) {
      const unsure = gap.findIndex((g) => g < sure)
      const count = Math.min(unsure < 0 ? greedy.length : unsure, maxTokens - prompt.length)
      const got = count > 0 ? runner.greedy(prompt, count) : []
      const wrong = got.findIndex((token, i) => token !== greedy[i])
      if (wrong >= 0)
        return {
          error: 1,
          where: `token ${wrong} behind prompt ${k} is ${got[wrong]}, and ${greedy[wrong]} there, by a gap of ${gap[wrong]!.toExponential(1)}`,
        }
    }
    return { error: 0 }
  })
}

/** One short prompt: in lockstep a rank's program runs again for each of its collectives. */
async function onRanks(runs: Runs, { material, prompts, maxTokens }: LogitRunsInput, size: number): Promise<void> {
  const name = `${size} ranks, cpu float32`
  const prompt = prompts[0]!
  const rowsOn = async (n: number): Promise<Float32Array[][]> => {
    const models = await Promise.all(Array.from({ length: n }, () => material.create()))
    const devices = Array.from({ length: n }, () => createCpuDevice({ threads: 1, pin: false }))
    const runners = new Map<number, Runner>()
    try {
      return lockstep(n, (tp) => {
        const model = models[tp.rank]!
        const load = (w: Material['weights'] | Parameters<Material['load']>[1]) => material.load(model, w)
        const runner = runners.get(tp.rank) ?? new Runner(model, material.weights, devices[tp.rank]!, { dtype: 'f32', tp, maxTokens, load })
        runners.set(tp.rank, runner)
        return runner.logits(prompt)
      })
    } finally {
      for (const runner of runners.values()) runner.close()
      for (const device of devices) device.close()
    }
  }
  let shared: Float32Array[][] | undefined
  try {
    shared = await rowsOn(size)
  } catch (e) {
    if (e instanceof AphroditeError && e.code === 'CANNOT_SHARD' && /tensor parallel size/.test(e.message))
      return runs.skip(name, e.message)
    await runs.compare(name, '1 rank', RANKS_LIMIT, () => Promise.reject(e))
    return
  }
  await runs.compare(name, '1 rank', RANKS_LIMIT, async () => {
    const [alone] = await rowsOn(1)
    const all = shared!.map((rows) => differenceOf([prompt], [rows], [alone!], RANKS_LIMIT))
    return all.find((d) => d.where !== undefined) ?? { error: Math.max(...all.map((d) => d.error)) }
  })
}
