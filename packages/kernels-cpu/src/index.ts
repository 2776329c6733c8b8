export {
  abortCommunicator,
  type CpuCommunicator,
  type CpuCommunicatorOptions,
  type CpuTransport,
  createCpuCommunicator,
  listenForRanks,
  type RankListener,
} from './communicator.ts'
export { CPU_DEVICE_DEFAULTS, type CpuDevice, type CpuDeviceOptions, createCpuDevice, ISAS, type Isa } from './device.ts'
export * from './errors.ts'
export { measurePeak, measureReadBandwidth } from './measure.ts'
