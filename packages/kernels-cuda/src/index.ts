export {
  abortCommunicator,
  createNcclCommunicator,
  createNcclId,
  type NcclCommunicator,
  type NcclCommunicatorOptions,
} from './communicator.ts'
export * from './device.ts'
export * from './errors.ts'
export * from './probe.ts'
export type { CallText } from './step-text.ts'
export { type StepTrace, StepTracer } from './step-trace.ts'
