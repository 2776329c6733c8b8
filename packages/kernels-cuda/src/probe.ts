import { readFileSync } from 'node:fs'
import { findNative } from './native.ts'

/** The least compute capability that the kernels are written for: Ampere. */
export const LEAST_CAPABILITY = 80

export interface CudaCard {
  /** As the driver numbers them: what `createCudaDevice` takes. */
  readonly index: number
  readonly name: string
  /** Bytes. */
  readonly memory: number
  /** 80, 89, 90 … */
  readonly capability: number
  /** Why these kernels cannot run on it. */
  readonly reason?: string
}

/** What this machine has for CUDA, and why it has nothing when it has nothing. */
export interface CudaProbe {
  /** Whether this build holds CUDA kernels at all. */
  readonly built: boolean
  readonly devices: readonly CudaCard[]
  /** `580.159.04` */
  readonly driver?: string
  readonly reason?: string
}

/** The CUDA devices of this machine. Never throws. */
export function probeCuda(): CudaProbe {
  const found = findNative()
  if (!('native' in found)) return { built: false, devices: [], reason: found.reason }
  const { devices, reason, targets } = found.native.probe()
  const driver = driverVersion()
  return {
    built: true,
    devices: devices.map((card, index) => {
      const unfit = unfitFor(card.capability, targets)
      return { ...card, index, ...(unfit !== undefined && { reason: `GPU ${index} (${card.name}) ${unfit}` }) }
    }),
    ...(driver !== undefined && { driver }),
    ...(reason !== undefined && { reason: explained(reason, driver) }),
  }
}

/**
 * Why kernels built for `targets` (`80 89 90a ptx90`) cannot run on a card; undefined where they can. Machine code runs on its own
 * generation from its own capability on, that of 90a on 9.0 alone, PTX on everything from its capability on.
 */
export function unfitFor(capability: number, targets: string): string | undefined {
  const dotted = (c: number): string => (c / 10).toFixed(1)
  if (capability < LEAST_CAPABILITY) return `has compute capability ${dotted(capability)}; the kernels need 8.0 (Ampere) or newer`
  const runs = targets.split(' ').some((target) => {
    const least = Number.parseInt(target.replace('ptx', ''), 10)
    if (target.startsWith('ptx')) return capability >= least
    if (target.endsWith('a')) return capability === least
    return capability >= least && Math.floor(capability / 10) === Math.floor(least / 10)
  })
  if (runs) return undefined
  return `has compute capability ${dotted(capability)}; these kernels were built for ${targets}: build them on this machine, or with KERNELS_CUDA_ARCHS=all`
}

/** The runtime says the same of a driver that is too old and of one that is not there. */
export function explained(reason: string, driver: string | undefined): string {
  if (!/insufficient/.test(reason)) return reason
  return driver === undefined ? `no NVIDIA driver was found (${reason})` : `the NVIDIA driver ${driver} is too old (${reason})`
}

/** The kernel module's, where the system shows it. */
function driverVersion(): string | undefined {
  try {
    return /Module\s+(?:for \S+\s+)?(\d+\.[\d.]+)/.exec(readFileSync('/proc/driver/nvidia/version', 'utf8'))?.[1]
  } catch {
    return undefined
  }
}
