export * from './params.ts'
export * from './protocol.ts'
