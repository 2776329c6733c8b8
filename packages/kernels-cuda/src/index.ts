export * from './device.ts'
export * from './errors.ts'
export * from './probe.ts'
