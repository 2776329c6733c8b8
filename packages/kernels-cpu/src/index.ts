export { CPU_DEVICE_DEFAULTS, type CpuDevice, type CpuDeviceOptions, createCpuDevice, ISAS, type Isa } from './device.ts'
export * from './errors.ts'
export { measurePeak, measureReadBandwidth } from './measure.ts'
