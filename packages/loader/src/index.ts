export * from './checkpoint.ts'
export * from './errors.ts'
export { type OpenOptions, openSafetensors, SafetensorsFile } from './safetensors.ts'
export type { SafetensorsHeader, TensorEntry } from './safetensors-header.ts'
