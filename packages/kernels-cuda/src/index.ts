export * from './probe.ts'
