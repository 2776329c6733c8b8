export type { Model, ModelClass, ModelExport } from './definition.ts'
export * from './errors.ts'
export * from './registry.ts'
export { resolveModule } from './resolve.ts'
