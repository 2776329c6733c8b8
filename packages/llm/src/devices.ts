import { type CpuDevice, createCpuDevice } from '@aphrodite/kernels-cpu'
import { type CudaDevice, createCudaDevice, probeCuda } from '@aphrodite/kernels-cuda'
import { llmError } from './errors.ts'
import type { ResolvedOptions } from './options.ts'

export type OpenedDevice = CpuDevice | CudaDevice

export interface DeviceReport {
  readonly kind: 'cpu' | 'cuda'
  readonly available: boolean
  readonly description: string
  /** Why it is not available. */
  readonly reason?: string
}

/** Every device of this machine, opened for a moment; a kind that has none is there with the reason. */
export function probeDevices(): DeviceReport[] {
  const reports = [reportOf('cpu', 'cpu', () => createCpuDevice({ threads: 1, pin: false }))]
  const { devices, reason } = probeCuda()
  for (const { index, name } of devices) reports.push(reportOf('cuda', `cuda:${index} (${name})`, () => createCudaDevice({ index })))
  if (devices.length === 0) reports.push({ kind: 'cuda', available: false, description: 'cuda', reason: reason ?? 'no CUDA device' })
  return reports
}

function reportOf(kind: DeviceReport['kind'], name: string, open: () => OpenedDevice): DeviceReport {
  try {
    const device = open()
    const { total, free } = device.memory()
    const memory = kind === 'cuda' ? `, ${gibibytes(free)} of ${gibibytes(total)} GiB free` : ''
    const description = device.description + memory
    device.close()
    return { kind, available: true, description }
  } catch (error) {
    return { kind, available: false, description: name, reason: error instanceof Error ? error.message : String(error) }
  }
}
const WHOLE: DeviceShare = Object.freeze({ index: 0, of: 1 })
const ALONE: DeviceShares = Object.freeze({ cores: WHOLE, gpus: WHOLE })

const gibibytes = (bytes: number): string => (bytes / 2 ** 30).toFixed(1)

/** Which of the ranks that share a machine's devices this one is, and how many they are. */
export interface DeviceShare {
  readonly index: number
  readonly of: number
}
export interface DeviceShares {
  readonly cores: DeviceShare
  readonly gpus: DeviceShare
}

/**
 * The device that the options ask for; of several ranks on one machine each gets a GPU, or a part of the cores, of its own. `say` gets the reason when `auto` does not take a GPU. Throws NO_DEVICE, and what goes
 * wrong on the way to a device that was asked for.
 */
export function openDevice(options: ResolvedOptions, say: (message: string) => void, shares: DeviceShares = ALONE): OpenedDevice {
  const share = shares.gpus
  if (options.device !== 'cpu') {
    const { devices, reason } = probeCuda()
    const usable = devices.filter((d) => d.reason === undefined)
    if (options.device === 'auto') {
      const why = devices[0]?.reason ?? reason ?? 'none was found'
      // All ranks or none: they compute on one kind of device.
      const mine = gpuOf(usable, { ...share, index: share.of - 1 }) && gpuOf(usable, share)
      const opened = mine ? openOrReason(mine.index) : usable[0] ? tooFew(usable.length, share) : `there is no CUDA device (${why})`
      if (typeof opened !== 'string') return opened
      say(`device: cpu, since ${opened}`)
    } else {
      const first = options.device.includes(':') ? Number(options.device.slice('cuda:'.length)) : undefined
      if (first === undefined && usable.length > 0 && !gpuOf(usable, { ...share, index: share.of - 1 }))
        throw llmError('NO_DEVICE', `${tooFew(usable.length, share)}. Lower --tensor-parallel-size, or use --device cpu.`)
      const asked = first === undefined ? (gpuOf(usable, share)?.index ?? 0) : first + share.index
      const found = devices[asked]
      if (devices.length === 0) throw llmError('NO_DEVICE', `there is no CUDA device: ${reason ?? 'none was found'}. Use --device cpu.`)
      if (!found)
        throw llmError(
          'NO_DEVICE',
          `there is no GPU ${asked}: this machine has ${devices.map((d) => `cuda:${d.index} (${d.name})`).join(', ')}.`,
        )
      if (found.reason !== undefined) throw llmError('NO_DEVICE', `${found.reason}. Use another GPU, or --device cpu.`)
      return createCudaDevice({ index: asked })
    }
  }
  return createCpuDevice({
    pin: options.pinThreads,
    share: shares.cores,
    ...(options.threads !== undefined && { threads: options.threads }),
  })
}

/** A launcher may show each rank nothing but its own. */
function gpuOf<T>(usable: readonly T[], { index }: DeviceShare): T | undefined {
  return usable.length === 1 && process.env['CUDA_VISIBLE_DEVICES'] ? usable[0] : usable[index]
}
const tooFew = (found: number, { of }: DeviceShare): string =>
  `${of} ranks are to run on this machine, and it has ${found} usable ${found === 1 ? 'GPU' : 'GPUs'}`

function openOrReason(index: number): CudaDevice | string {
  try {
    return createCudaDevice({ index })
  } catch (error) {
    return `GPU ${index} could not be opened (${error instanceof Error ? error.message : String(error)})`
  }
}
