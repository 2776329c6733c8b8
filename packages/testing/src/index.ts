export * from './errors.ts'
export * from './reference/device.ts'
export { draw, type Filter, type KeptToken, keptTokens } from './reference/sampling.ts'
