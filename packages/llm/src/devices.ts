import { type CpuDevice, createCpuDevice } from '@aphrodite/kernels-cpu'
import { probeCuda } from '@aphrodite/kernels-cuda'
import { llmError } from './errors.ts'
import type { ResolvedOptions } from './options.ts'

export interface DeviceReport {
  readonly kind: 'cpu' | 'cuda'
  readonly available: boolean
  readonly description: string
  /** Why it is not available. */
  readonly reason?: string
}

/** Every kind of device, and why one cannot be used here. */
export function probeDevices(): DeviceReport[] {
  const reports: DeviceReport[] = []
  try {
    const cpu = createCpuDevice({ threads: 1, pin: false })
    reports.push({ kind: 'cpu', available: true, description: cpu.description })
    cpu.close()
  } catch (error) {
    reports.push({ kind: 'cpu', available: false, description: 'cpu', reason: error instanceof Error ? error.message : String(error) })
  }
  const { devices, reason } = probeCuda()
  for (const { name, memory } of devices)
    reports.push({ kind: 'cuda', available: true, description: `${name}, ${(memory / 2 ** 30).toFixed(0)} GiB` })
  if (devices.length === 0) reports.push({ kind: 'cuda', available: false, description: 'cuda', reason: reason ?? 'no CUDA device' })
  return reports
}

/** The device that the options ask for; `say` gets the reason when `auto` does not take a GPU. */
export function openDevice(options: ResolvedOptions, say: (message: string) => void): CpuDevice {
  const { devices, reason } = probeCuda()
  if (options.device === 'cuda') throw llmError('NO_DEVICE', `there is no CUDA device: ${reason ?? 'none was found'}. Use --device cpu.`)
  if (options.device === 'auto' && devices.length === 0) say(`device: cpu, since there is no CUDA device (${reason ?? 'none was found'})`)
  return createCpuDevice({ pin: options.pinThreads, ...(options.threads !== undefined && { threads: options.threads }) })
}
